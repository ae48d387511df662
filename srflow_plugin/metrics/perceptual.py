"""Learned distances between two images, whole or pixel by pixel; every network is loaded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from basicsr.utils import img2tensor
from torch import Tensor, nn

from srflow_plugin.devices import choose_device
from srflow_plugin.errors import UserError, needs
from srflow_plugin.metrics.published import Net, lpips_network, stlpips_network

Distance = Literal["lpips", "stlpips"]
COMPARISONS_KEPT = 16  # a distance and a map each: for the samples of an image


class Remembering(nn.Module):
    """A network that knows its last two inputs again: the ground truth and a sample, compared with many others."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.last: list[tuple[Tensor, Any]] = []

    def forward(self, x: Tensor) -> Any:
        for number, (seen, output) in enumerate(self.last):
            if seen.shape == x.shape and torch.equal(seen, x):
                self.last.append(self.last.pop(number))
                return output
        output = self.network(x)
        self.last = [*self.last[-1:], (x, output)]
        return output


class PerceptualDistance:
    """A network that compares images, on the GPU if there is one. It remembers its latest answers.

    Args:
        network: of the package ``lpips``, or like one.
    """

    def __init__(self, network: Any) -> None:
        network.spatial = True
        network.net = Remembering(network.net)
        self.network = network.eval().requires_grad_(False).to(choose_device())
        self.compared: dict[tuple[bytes, bytes], tuple[float, Tensor]] = {}

    def __call__(self, img: np.ndarray, img2: np.ndarray) -> tuple[float, Tensor]:
        """Compute the distance of two uint8 BGR images (H, W, 3): the number, and the map (H, W)."""
        one, other = (hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest() for image in (img, img2))
        if (one, other) not in self.compared:
            self.compared[one, other] = self._compare(img, img2)
            while len(self.compared) > COMPARISONS_KEPT:
                del self.compared[next(iter(self.compared))]
        return self.compared[one, other]

    @torch.no_grad()
    def _compare(self, img: np.ndarray, img2: np.ndarray) -> tuple[float, Tensor]:
        device = next(self.network.parameters()).device
        x, y = (img2tensor(image / np.float32(255))[None].to(device) for image in (img, img2))
        layers: list[Tensor] = []
        hooks = [
            layer.register_forward_hook(lambda _, args, out: layers.append(out.mean())) for layer in self.network.lins
        ]
        try:
            per_pixel = self.network(x, y, normalize=True)[0, 0]
        finally:
            for hook in hooks:
                hook.remove()
        return float(sum(layers)), per_pixel.cpu()


def distance_map(img: np.ndarray, img2: np.ndarray, distance: Distance = "lpips", net: Net = "alex") -> Tensor:
    """Compute the distance of uint8 BGR images (H, W, 3) at each pixel, (H, W): each layer's, enlarged, summed."""
    return perceptual_distance(distance, net)(img, img2)[1]


def image_distance(img: np.ndarray, img2: np.ndarray, distance: Distance = "lpips", net: Net = "alex") -> float:
    """Compute the distance of two uint8 BGR images (H, W, 3): each layer's mean over positions, summed."""
    return perceptual_distance(distance, net)(img, img2)[0]


@cache
def perceptual_distance(distance: Distance, net: Net) -> PerceptualDistance:
    """Load a comparison by its name; each network is loaded once.

    Raises:
        UserError: its weights cannot be had, or a package is missing.
    """
    makers: dict[str, Callable[[Net], Any]] = {"lpips": lpips_network, "stlpips": stlpips_network}
    if distance not in makers or net not in ("alex", "vgg"):
        raise ValueError(f"distance must be lpips or stlpips and net alex or vgg, not {distance!r} and {net!r}")
    try:
        with needs({"lpips": "train", "stlpips": "stlpips"}[distance], distance):
            network = makers[distance](net)
    except UserError as error:
        if distance == "stlpips" or isinstance(error.__cause__, ImportError):
            raise
        raise UserError(
            f"{error}. See docs/benchmarks.md, or use calculate_stlpips (srflow benchmark: --distance stlpips), whose "
            "weights come with its package"
        ) from None
    return PerceptualDistance(network)
