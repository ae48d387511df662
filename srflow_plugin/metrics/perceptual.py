"""Learned distances of images to one other, whole and pixel by pixel; every network is loaded once.

An image goes through the network once, however many metrics ask, and the reference once for all that are compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from threading import Lock
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from basicsr.utils import img2tensor
from torch import Tensor
from torch.nn import functional as F

from srflow_plugin.devices import choose_device
from srflow_plugin.errors import UserError, needs
from srflow_plugin.metrics.blurred import merge_blurs
from srflow_plugin.metrics.once import Once
from srflow_plugin.metrics.published import Net, lpips_network, stlpips_network

Distance = Literal["lpips", "stlpips"]
Features = list[Tensor]
COMPARISONS_KEPT = 64  # some numbers each
REFERENCES_KEPT = 1  # 440 MB at 2040x1356; temperatures and methods of one image come after each other
PIXELS_AT_ONCE = 2**21  # on a GPU; a CPU is quickest with one image at a time


class Comparison(NamedTuple):
    """Distances of several images to one."""

    distances: list[float]  # of each image: each layer's mean over positions, summed
    map_means: list[float]  # of each image: the mean over pixels of each layer's distances, enlarged, summed
    nearest: float  # the mean over pixels of the smallest of those that an image has there


class PerceptualDistance:
    """A network that compares images, on the GPU if there is one. It remembers its latest answers.

    Args:
        network: of the package ``lpips``, or like one.
    """

    def __init__(self, network: Any) -> None:
        merge_blurs(network.net)
        self.device = choose_device()
        network.eval().requires_grad_(False)
        self.network = network.to(self.device, memory_format=torch.channels_last)
        # On a GPU threads take turns, so that it holds one batch; cores have an image each.
        self.turn = nullcontext() if self.device.type == "cpu" else Lock()
        self.compared: Once[bytes, Comparison] = Once(COMPARISONS_KEPT)

    def __call__(self, images: Sequence[np.ndarray], reference: np.ndarray) -> Comparison:
        """Compare uint8 BGR images (H, W, 3) with one of their size."""
        if sizes := {image.shape for image in images} - {reference.shape}:
            raise ValueError(f"images of {sizes.pop()} and {reference.shape} cannot be compared")
        key = b"".join(map(_digest, (reference, *images)))
        with self.turn:
            return self.compared(key, lambda: self._compare(images, reference))

    @torch.no_grad()
    def _compare(self, images: Sequence[np.ndarray], reference: np.ndarray) -> Comparison:
        target = _references((self, _digest(reference)), lambda: self.features([reference]))
        size = (reference.shape[0], reference.shape[1])
        distances: list[float] = []
        map_means: list[float] = []
        nearest = torch.full(size, torch.inf)
        at_once = self.at_once(size)
        for first in range(0, len(images), at_once):
            layers = self._differences(self.features(images[first : first + at_once]), target)
            distances += torch.stack([layer.mean((1, 2, 3)) for layer in layers]).sum(0).tolist()
            maps = torch.cat([F.interpolate(layer, size, mode="bilinear") for layer in layers], 1).sum(1).cpu()
            map_means += maps.double().mean((1, 2)).tolist()
            nearest = torch.minimum(nearest, maps.amin(0))
        return Comparison(distances, map_means, float(nearest.double().mean()))

    def at_once(self, size: tuple[int, int]) -> int:
        """Number of images of a size that go through the network together."""
        return 1 if self.device.type == "cpu" else max(1, PIXELS_AT_ONCE // (size[0] * size[1]))

    @torch.no_grad()
    def features(self, images: Sequence[np.ndarray]) -> Features:
        """Compute the features of uint8 BGR images (H, W, 3) of one size, by layers; a position's are of length 1."""
        x = torch.stack([img2tensor(image / np.float32(255)) for image in images]).to(self.device)
        x = self.network.scaling_layer((2 * x - 1).contiguous(memory_format=torch.channels_last))
        return [layer.div_(layer.square().sum(1, keepdim=True).sqrt_().add_(1e-10)) for layer in self.network.net(x)]

    def _differences(self, features: Features, target: Features) -> list[Tensor]:
        """Weigh the differences of features: a distance at every position of each layer, (B, 1, h, w)."""
        layers = zip(self.network.lins, features, target, strict=True)
        return [weigh(one.sub_(other).square_()) for weigh, one, other in layers]


_references: Once[tuple[PerceptualDistance, bytes], Features] = Once(REFERENCES_KEPT)


def forget_references() -> None:
    """Give the memory back that features of the image take which others were compared with last."""
    _references.forget()


def _digest(image: np.ndarray) -> bytes:
    return hashlib.sha256(repr((image.shape, image.dtype)).encode() + image.tobytes()).digest()


def compare(images: Sequence[np.ndarray], reference: np.ndarray, distance: Distance, net: Net) -> Comparison:
    """Compare uint8 BGR images (H, W, 3) with one of their size."""
    return perceptual_distance(distance, net)(images, reference)


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
            f"{error}. See docs/reference/metrics.md, or use calculate_stlpips (srflow benchmark: --distance stlpips), "
            "whose weights come with its package"
        ) from None
    return PerceptualDistance(network)
