"""Learned distances between two images, whole or pixel by pixel; every network is loaded once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from basicsr.utils import img2tensor
from torch import Tensor, nn

from srflow_plugin.errors import UserError

Distance = Literal["lpips", "stlpips"]
Net = Literal["alex", "vgg"]


def distance_map(img: np.ndarray, img2: np.ndarray, distance: Distance = "lpips", net: Net = "alex") -> Tensor:
    """The distance at each pixel, (H, W), of uint8 BGR images (H, W, 3): each layer's, enlarged, summed."""
    return _run(img, img2, distance, net, spatial=True)[0, 0]


def image_distance(img: np.ndarray, img2: np.ndarray, distance: Distance = "lpips", net: Net = "alex") -> float:
    """The distance of two uint8 BGR images (H, W, 3): the mean over each layer's positions, summed over the layers."""
    return float(_run(img, img2, distance, net, spatial=False))


@torch.no_grad()
def _run(img: np.ndarray, img2: np.ndarray, distance: Distance, net: Net, spatial: bool) -> Tensor:
    network: Any = perceptual_network(distance, net)
    network.spatial = spatial
    device = next(network.parameters()).device
    x, y = (img2tensor(image / np.float32(255))[None].to(device) for image in (img, img2))
    result: Tensor = network(x, y, normalize=True)
    return result


@cache
def perceptual_network(distance: Distance, net: Net) -> nn.Module:
    """The network, on the GPU if there is one.

    Raises:
        UserError: its weights cannot be had, or a package is missing.
    """
    makers: dict[str, Callable[[Net], nn.Module]] = {"lpips": _lpips, "stlpips": _stlpips}
    if distance not in makers or net not in ("alex", "vgg"):
        raise ValueError(f"distance must be lpips or stlpips and net alex or vgg, not {distance!r} and {net!r}")
    try:
        network = makers[distance](net)
    except ImportError as error:
        raise UserError(f"{distance} needs {error.name}; pip install 'srflow_plugin[{distance}]'") from None
    except OSError as error:  # an URLError, too
        raise UserError(
            f"the weights of {net} cannot be fetched ({error}); see docs/benchmarks.md, or use calculate_stlpips, "
            "whose weights come with its package"
        ) from None
    return network.eval().requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")


def _lpips(net: Net) -> nn.Module:
    import lpips

    return lpips.LPIPS(net=net, verbose=False)


def _stlpips(net: Net) -> nn.Module:
    from stlpips_pytorch import stlpips

    network: Any = stlpips.LPIPS(net=net, variant="shift_tolerant", verbose=False)
    return network
