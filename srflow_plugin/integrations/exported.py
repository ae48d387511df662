"""A network as one graph for other programs: LR image in, or LR image and latents, and the picture out.

The numbers are those of the plan, :mod:`srflow_plugin.flow.fast`, which cannot be exported itself: it folds its weights
at every call, goes through an image in windows, and adds in place. Here all is folded into convolutions once, when the
module is made, and every size follows from those of the inputs by formulas that an exporter can keep.
tests/integrations/test_exported.py holds the two together.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from copy import deepcopy
from importlib import import_module
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.errors import UserError
from srflow_plugin.flow import fast
from srflow_plugin.flow.context import Context, kernels_of_enlarged, kinds_of_rows
from srflow_plugin.flow.fast import Convolution, NetWeights
from srflow_plugin.flow.multiscale import FlowStep, TransitionStep

EXAMPLE = (2, 13, 19)  # images, height, width that a graph is traced with; odd, so that all sizes are extended
PRECISIONS = {"float32": torch.float32, "float16": torch.float16}

Precision = Literal["float32", "float16"]


@torch.no_grad()
def export_program(
    network: SRFlowNet, with_latents: bool = False, precision: Precision = "float32"
) -> torch.export.ExportedProgram:
    """Export a network by :func:`torch.export.export`, for LR images of any number, height and width.

    Args:
        network: its weights are copied.
        with_latents: the program takes the LR image (B, 3, h, w), then the latents, finest first, of the shapes that
            ``network.latent_shapes(h, w)`` lists. Else it takes the LR image alone: temperature 0.
        precision: of the encoder and the conditional networks. Inputs, output and the flow's own variable are float32.

    Raises:
        UserError: PyTorch is too old.
    """
    module = Exported(network, precision).eval()
    images, height, width = EXAMPLE
    lr = torch.rand(images, module.in_channels, height, width)
    latents = [torch.randn(images, *shape) for shape in network.latent_shapes(height, width)]
    inputs = (lr, *latents) if with_latents else (lr,)
    with size_oblivious():
        return torch.export.export(module, inputs, dynamic_shapes=dynamic_shapes(network, with_latents))


def size_oblivious() -> AbstractContextManager[None]:
    """Let exports ask nothing of a size of 1, which images may have, that they do not ask of larger ones."""
    config: Any = import_module("torch.fx.experimental._config")
    if not hasattr(config, "backed_size_oblivious"):
        raise UserError(f"PyTorch {torch.__version__} cannot export networks for images of any size; update it")
    scope: AbstractContextManager[None] = config.patch(backed_size_oblivious=True)
    return scope


def dynamic_shapes(network: SRFlowNet, with_latents: bool) -> tuple[Any, ...]:
    """Name the dimensions of the inputs that are free."""
    batch, *size = (torch.export.Dim(name) for name in ("batch", "height", "width"))
    of_lr = {0: batch, 2: size[0], 3: size[1]}
    if not with_latents:
        return (of_lr,)
    # An LR image that is never extended has as many units as pixels, and they are one dimension.
    units = size if network.lq_multiple == 1 else [torch.export.Dim(name) for name in ("rows", "columns")]
    of_latents = []
    for _, factor in latent_sizes(network):
        rows, columns = (unit if factor == 1 else factor * unit for unit in units)
        of_latents.append({0: batch, 2: rows, 3: columns})
    return of_lr, tuple(of_latents)


def latent_sizes(network: SRFlowNet) -> list[tuple[int, int]]:
    """List channels and size of the latents, finest first; the size is that for one unit of ``lq_multiple`` pixels."""
    return [(channels, height) for channels, height, _ in network.latent_shapes(1, 1)]


class Exported(nn.Module):
    """Encoder and decoder of a network, with all that does not depend on the inputs computed beforehand.

    Args:
        network, precision: see :func:`export_program`.
    """

    def __init__(self, network: SRFlowNet, precision: Precision) -> None:
        super().__init__()
        network, dtype = deepcopy(network).to("cpu", torch.float32), PRECISIONS[precision]
        self.in_channels = network.encoder.conv_first.in_channels
        self.scale, self.multiple, self.shift = network.scale, network.lq_multiple, network.shift
        self.last_channels = latent_sizes(network)[-1][0]
        self.has_noise_level = network.noise == "conditional"
        self.encoder = network.encoder.to(dtype)
        self.encoder.compiled = False
        self.levels = nn.ModuleList(Level(network, index, dtype) for index in range(len(network.flow.levels)))

    def forward(self, lr: Tensor, *latents: Tensor) -> Tensor:
        """LR images (B, 3, h, w) in [0, 1], latents -> (B, 3, scale*h, scale*w), not clamped."""
        padded = self.padded(lr, latents)
        contexts = self.encoder.contexts(padded.to(self.encoder.conv_first.weight.dtype))
        zeros = torch.zeros_like(contexts[-1].own[:, :1], dtype=lr.dtype).expand(-1, self.last_channels, -1, -1)
        y = latents[-1] if latents else zeros
        for index in reversed(range(len(self.levels))):
            latent = latents[index] if index < len(latents) - 1 else None
            y = self.levels[index](y, latent, *self.parts(contexts[index]))
        return self.cropped(y - self.shift, lr)

    def padded(self, lr: Tensor, latents: tuple[Tensor, ...]) -> Tensor:
        """Extend an LR image as :meth:`SRFlowNet.padded_lq` does; with latents, to the size that they are for."""
        if self.multiple == 1:
            return lr
        for axis in (2, 3):
            length = lr.shape[axis]
            units = latents[-1].shape[axis] if latents else (length - 1) // self.multiple + 1
            places = torch.arange(self.multiple * units, device=lr.device).clamp(max=length - 1)
            lr = lr.index_select(axis, places)
        return lr

    def cropped(self, image: Tensor, lr: Tensor) -> Tensor:
        """Cut off what :meth:`padded` has led to; by places, since a slice must know which of two sizes is larger."""
        if self.multiple > 1:
            for axis in (2, 3):
                image = image.index_select(axis, torch.arange(self.scale * lr.shape[axis], device=lr.device))
        return image

    def parts(self, context: Context) -> tuple[Tensor, Tensor | None]:
        """Take a context apart; where the steps are told a level of noise, there is none."""
        if not self.has_noise_level:
            return context.own, context.coarse
        return torch.cat([context.own, torch.zeros_like(context.own[:, :1])], dim=1), context.coarse


class Level(nn.Module):
    """One level of a flow, towards the image.

    Args:
        network: of the level.
        index: its number, finest first.
        dtype: of the conditional networks.
    """

    def __init__(self, network: SRFlowNet, index: int, dtype: torch.dtype) -> None:
        super().__init__()
        is_split = index < len(network.flow.splits)
        self.split = network.flow.splits[index] if is_split else None
        steps = fast.level_steps(network.flow.levels[index])
        coarse = network.encoder.conv_first.out_channels * len(network.encoder.feature_blocks)
        factor = max(1, int(network.encoder.level_scales[index]))
        unmixings = fast.inverse_mixings(steps)
        self.steps = nn.ModuleList(
            Step(step, unmixing, coarse if factor > 1 else 0, factor, dtype)
            for step, unmixing in zip(reversed(steps), reversed(unmixings), strict=True)
        )

    def forward(self, y: Tensor, latent: Tensor | None, own: Tensor, coarse: Tensor | None) -> Tensor:
        if self.split is not None:
            y, _ = self.split.inverse(y, torch.zeros_like(y) if latent is None else latent)
        for step in self.steps:
            y = step(y, own, coarse)
        return F.pixel_shuffle(y, 2)


class Step(nn.Module):
    """One step of a flow, towards the image.

    Args:
        step: of the flow.
        unmixing: its :func:`fast.inverse_mixings`.
        coarse: number of the channels of the context that are not of the level's size.
        factor: of their enlargement.
        dtype: of the conditional networks.
    """

    def __init__(
        self, step: TransitionStep, unmixing: tuple[Tensor, Tensor], coarse: int, factor: int, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.unmixing = layer(Convolution(*unmixing))
        self.conditional = Conditional(step, coarse, factor, dtype) if isinstance(step, FlowStep) else None

    def forward(self, y: Tensor, own: Tensor, coarse: Tensor | None) -> Tensor:
        if self.conditional is not None:
            y = self.conditional(y, own, coarse)
        x: Tensor = self.unmixing(y)
        return x


class Conditional(nn.Module):
    """Coupling and injector of a step, undone; see :class:`Step` for the arguments."""

    def __init__(self, step: FlowStep, coarse: int, factor: int, dtype: torch.dtype) -> None:
        super().__init__()
        weights = fast.fold(step, dtype)
        weight, bias = weights.condition
        self.own = layer(Convolution(weight[:, : weight.shape[1] - coarse], bias))
        kernels = kernels_of_enlarged(weight[:, weight.shape[1] - coarse :], factor) if coarse else None
        self.coarse = None if kernels is None else layer(Convolution(kernels, None), padding=1)
        self.variable = layer(weights.variable)
        self.injector, self.coupling = Net(weights.injector), Net(weights.coupling)
        self.factor = factor

    def forward(self, y: Tensor, own: Tensor, coarse: Tensor | None) -> Tensor:
        condition = self.own(own)
        if self.coarse is not None:
            condition = condition + interleaved(self.coarse(coarse), self.factor)
        of_injector, of_coupling = condition.chunk(2, dim=1)
        shift, scale = self.injector(F.relu(of_injector), y.dtype)
        a, b = y.tensor_split([self.variable.in_channels], dim=1)
        hidden = F.relu(self.variable(a.to(own.dtype)) + of_coupling)
        b_shift, b_scale = self.coupling(hidden, y.dtype)
        x: Tensor = torch.cat([a, b / b_scale - b_shift], dim=1) / scale - shift
        return x


class Net(nn.Module):
    """Layers after the first ReLU of a conditional net: (B, hidden, h, w) -> shift and scale, in a type."""

    def __init__(self, weights: NetWeights) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(map(layer, weights.hidden))
        self.last = layer(weights.last)
        self.scale = weights.scale

    def forward(self, hidden: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        for convolution in self.hidden:
            hidden = F.relu(convolution(hidden))
        shift, raw = self.last(hidden).to(dtype).chunk(2, dim=1)
        return shift, self.scale(raw)


def layer(convolution: Convolution, padding: int | None = None) -> nn.Conv2d:
    """Make a layer of a convolution; by default with the padding that keeps the size."""
    weight, bias = convolution
    made = nn.Conv2d(
        weight.shape[1],
        weight.shape[0],
        (weight.shape[2], weight.shape[3]),
        padding=weight.shape[-1] // 2 if padding is None else padding,
        bias=bias is not None,
        dtype=weight.dtype,
    )
    made.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
    return made.requires_grad_(False)


def interleaved(blocks: Tensor, factor: int) -> Tensor:
    """Put the outputs of :func:`kernels_of_enlarged` where they belong: (B, O, h * factor, w * factor).

    It is what :func:`add_conv_of_enlarged` adds, by slices and one shuffle, which exporters know.
    """
    kinds = kinds_of_rows(factor)
    number = kinds[-1] + 1
    parts = blocks.chunk(number * number, dim=1)
    ends = (slice(None, -1), slice(1, None))  # of the first kind, of the others
    placed = [
        parts[row * number + column][:, :, ends[min(row, 1)], ends[min(column, 1)]] for row in kinds for column in kinds
    ]
    return F.pixel_shuffle(torch.stack(placed, dim=2).flatten(1, 2), factor)
