"""SRFlow as an architecture of spandrel (github.com/chaiNNer-org/spandrel), which opens upscaling networks for others.

After :func:`install` spandrel's own ModelLoader opens this project's files and the released ones, and so do the
programs that build on it. The image is that of temperature 0, as ``srflow upscale --temperature 0`` draws it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from srflow_plugin.errors import needs

with needs("spandrel", "srflow_plugin.integrations.spandrel"):
    from spandrel import MAIN_REGISTRY, Architecture, ArchSupport, ImageModelDescriptor, ModelTiling

if TYPE_CHECKING:
    from srflow_plugin.archs.srflow_arch import SRFlowNet

# Beginnings of keys of which a file has all: this project's files, and the released ones.
LAYOUTS = (("encoder.", "flow.levels."), ("RRDB.", "flowUpsamplerNet.layers."))


def is_srflow(state_dict: Mapping[str, Any]) -> bool:
    """Recognise the weights of SRFlow by their names; whole or not, which loading says.

    >>> is_srflow({"encoder.conv_first.bias": 0, "flow.levels.0.bijections.1.actnorm.bias": 0})
    True
    >>> is_srflow({"conv_first.bias": 0, "body.0.rdb1.conv1.weight": 0})
    False
    """
    return any(all(any(key.startswith(part) for key in state_dict) for part in layout) for layout in LAYOUTS)


class SRFlowArch(Architecture["SRFlowNet"]):  # type: ignore[misc]  # spandrel's types are not followed
    """SRFlow, drawn at temperature 0."""

    def __init__(self) -> None:
        super().__init__(id="SRFlow", detect=is_srflow)

    def load(self, state_dict: dict[str, Any]) -> ImageModelDescriptor[SRFlowNet]:
        """Build the network of a state dict, its hyperparameters read from it.

        What a released file does not tell is logged as a warning, as :func:`load_network` does. Half precision is
        refused by spandrel: the flow computes in float32.

        Raises:
            UserError: it is not the whole of a network.
        """
        from srflow_plugin.checkpoints.fit import hyperparameters
        from srflow_plugin.checkpoints.load import network_of, network_weights

        name = "the state dict"
        weights = network_weights(state_dict, name=name)
        network = network_of(weights, name).eval()
        sizes = hyperparameters(weights, name)
        return ImageModelDescriptor(
            network,
            weights,
            architecture=self,
            purpose="SR",
            tags=[f"{sizes['num_feat']}nf", f"{sizes['num_block']}nb", f"{sizes['num_levels']}x{sizes['num_steps']}"],
            supports_half=False,
            supports_bfloat16=False,
            scale=network.scale,
            input_channels=sizes["num_in_ch"],
            output_channels=sizes["num_in_ch"],
            tiling=ModelTiling.INTERNAL,
            call_fn=most_likely_image,
        )


def most_likely_image(network: SRFlowNet, image: Tensor) -> Tensor:
    """Draw the image of temperature 0, (B, C, h, w) -> (B, C, scale*h, scale*w), as ``srflow upscale`` does."""
    from srflow_plugin.applications.upscale import RESAMPLE

    return network.sample(image, 0, tile="auto", resample=RESAMPLE)[0]


def install() -> None:
    """Add SRFlow to the architectures that spandrel knows; a second time changes nothing."""
    MAIN_REGISTRY.add(ArchSupport.from_architecture(SRFlowArch()), ignore_duplicates=True)
