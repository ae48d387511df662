"""BasicSR's SSIM of several images with one reference: what is of the reference alone is computed once.

The window is a product of two of one dimension, and is applied so. Values are BasicSR's to 1e-12.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from basicsr.metrics.metric_util import reorder_image, to_y_channel

WINDOW = cv2.getGaussianKernel(11, 1.5)
MARGIN = len(WINDOW) // 2  # where it does not fit
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ssim_of_each(
    images: Sequence[np.ndarray],
    img2: np.ndarray,
    crop_border: int,
    input_order: str = "HWC",
    test_y_channel: bool = False,
    **kwargs: Any,
) -> list[float]:
    """Compute BasicSR's ``calculate_ssim`` of several images."""
    if sizes := {image.shape for image in images} - {img2.shape}:
        raise ValueError(f"images of {sizes.pop()} and {img2.shape} cannot be compared")

    def inner(image: np.ndarray) -> np.ndarray:
        image = reorder_image(image, input_order=input_order)
        image = image[crop_border : image.shape[0] - crop_border, crop_border : image.shape[1] - crop_border]
        return to_y_channel(image) if test_y_channel else image

    reference, others = inner(img2), [*map(inner, images)]
    ssim = np.zeros((reference.shape[2], len(others)))
    for channel, of_channel in enumerate(ssim):
        y = reference[..., channel].astype(np.float64)
        mean_y, square_y = _windowed(y), _windowed(y * y)
        of_channel[:] = [_ssim(other[..., channel].astype(np.float64), y, mean_y, square_y) for other in others]
    mean: list[float] = ssim.mean(0).tolist()
    return mean


def _ssim(x: np.ndarray, y: np.ndarray, mean_y: np.ndarray, square_y: np.ndarray) -> float:
    """Compute SSIM of one channel (H, W) from the images and windowed means of y and y * y."""
    mean_x, square_x, product = _windowed(x), _windowed(x * x), _windowed(x * y)
    means, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    above = (2 * means + C1) * (2 * (product - means) + C2)
    below = (squares + C1) * (square_x + square_y - squares + C2)
    return float((above / below).mean())


def _windowed(channel: np.ndarray) -> np.ndarray:
    filtered: np.ndarray = cv2.sepFilter2D(channel, -1, WINDOW, WINDOW)
    return filtered[MARGIN:-MARGIN, MARGIN:-MARGIN]
