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
    sums = np.zeros(len(images))
    reference, *others = (_channels(image, crop_border, input_order, test_y_channel) for image in (img2, *images))
    for channel, y in enumerate(reference):
        mean_y = _windowed(y)
        square_y = _windowed(y * y)
        sums += [_ssim(other[channel], y, mean_y, square_y) for other in others]
    mean: list[float] = (sums / len(reference)).tolist()
    return mean


def _channels(image: np.ndarray, border: int, input_order: str, is_y: bool) -> list[np.ndarray]:
    image = reorder_image(image, input_order=input_order)
    inner = image[border : image.shape[0] - border, border : image.shape[1] - border]
    inner = to_y_channel(inner) if is_y else inner
    return [channel.astype(np.float64) for channel in np.moveaxis(inner, -1, 0)]


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
