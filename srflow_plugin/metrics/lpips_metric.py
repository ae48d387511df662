"""LPIPS, and its shift-tolerant version, whose weights need no download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from srflow_plugin.metrics.perceptual import Distance, compare
from srflow_plugin.metrics.published import Net


def calculate_lpips(img: np.ndarray, img2: np.ndarray, net: Net = "alex", crop_border: int = 0, **kwargs: Any) -> float:
    """LPIPS (Zhang et al., CVPR 2018), version 0.1, of uint8 BGR images (H, W, 3): 0 is the same image.

    The field reports ``net="alex"``. The weights of AlexNet or VGG are fetched once.
    """
    return _distances([img], img2, "lpips", net, crop_border)[0]


def calculate_stlpips(
    img: np.ndarray, img2: np.ndarray, net: Net = "alex", crop_border: int = 0, **kwargs: Any
) -> float:
    """Shift-tolerant LPIPS (Ghildyal and Liu, ECCV 2022) of uint8 BGR images (H, W, 3): 0 is the same image.

    Its weights come with its package, in the extra "stlpips". Not comparable with LPIPS in value.
    """
    return _distances([img], img2, "stlpips", net, crop_border)[0]


def lpips_of_each(
    images: Sequence[np.ndarray], img2: np.ndarray, net: Net = "alex", crop_border: int = 0, **kwargs: Any
) -> list[float]:
    """Compute :func:`calculate_lpips` of several images."""
    return _distances(images, img2, "lpips", net, crop_border)


def stlpips_of_each(
    images: Sequence[np.ndarray], img2: np.ndarray, net: Net = "alex", crop_border: int = 0, **kwargs: Any
) -> list[float]:
    """Compute :func:`calculate_stlpips` of several images."""
    return _distances(images, img2, "stlpips", net, crop_border)


def _distances(
    images: Sequence[np.ndarray], reference: np.ndarray, distance: Distance, net: Net, border: int
) -> list[float]:
    cropped, *others = (_cropped(image, border) for image in (reference, *images))
    return compare(others, cropped, distance, net).distances


def _cropped(image: np.ndarray, border: int) -> np.ndarray:
    return image[border : image.shape[0] - border, border : image.shape[1] - border]
