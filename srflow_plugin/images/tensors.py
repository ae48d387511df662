"""The converters between images as arrays (H, W, C) and as tensors, one each way."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_tensor(pixels: np.ndarray) -> Tensor:
    """Turn an image (H, W, C), uint8 or float in [0, 1], into a batch of one: float32 (1, C, H, W) in [0, 1].

    >>> to_tensor(np.full((2, 3, 3), 255, np.uint8)).shape
    torch.Size([1, 3, 2, 3])
    """
    scaled = pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))[None]


def to_array(image: Tensor) -> np.ndarray:
    """Turn an image (C, H, W) into float32 (H, W, C), its values as they are."""
    pixels: np.ndarray = image.detach().float().cpu().numpy().transpose(1, 2, 0)
    return pixels


def to_pixels(image: Tensor) -> np.ndarray:
    """Turn an image (C, H, W) in [0, 1] into uint8 (H, W, C), clamped and rounded; what is not a number is black."""
    pixels: np.ndarray = np.nan_to_num(255 * to_array(image.clamp(0, 1))).round().astype(np.uint8)
    return pixels


def to_bgr(picture: np.ndarray) -> np.ndarray:
    """Turn RGB (H, W, 3) into BGR, which BasicSR's metrics take, or back."""
    return np.ascontiguousarray(picture[..., ::-1])
