"""LPIPS, and its shift-tolerant version, whose weights need no download."""

from __future__ import annotations

from typing import Any

import numpy as np

from srflow_plugin.metrics.perceptual import image_distance
from srflow_plugin.metrics.published import Net


def calculate_lpips(img: np.ndarray, img2: np.ndarray, net: Net = "alex", crop_border: int = 0, **kwargs: Any) -> float:
    """LPIPS (Zhang et al., CVPR 2018), version 0.1, of uint8 BGR images (H, W, 3): 0 is the same image.

    The field reports ``net="alex"``. The weights of AlexNet or VGG are fetched once.
    """
    return image_distance(_cropped(img, crop_border), _cropped(img2, crop_border), "lpips", net)


def calculate_stlpips(
    img: np.ndarray, img2: np.ndarray, net: Net = "alex", crop_border: int = 0, **kwargs: Any
) -> float:
    """Shift-tolerant LPIPS (Ghildyal and Liu, ECCV 2022) of uint8 BGR images (H, W, 3): 0 is the same image.

    Its weights come with its package, in the extra "stlpips". Not comparable with LPIPS in value.
    """
    return image_distance(_cropped(img, crop_border), _cropped(img2, crop_border), "stlpips", net)


def _cropped(image: np.ndarray, border: int) -> np.ndarray:
    return image[border : image.shape[0] - border, border : image.shape[1] - border]
