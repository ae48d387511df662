"""MATLAB's bicubic downscale, bit for bit: the LR maker of the field's benchmarks."""

from __future__ import annotations

from typing import Literal

import numpy as np


def bicubic_downscale(
    image: np.ndarray, scale: int, border: Literal["symmetric", "replicate"] = "symmetric"
) -> np.ndarray:
    """Downscale as MATLAB's ``imresize(image, 1/scale, "bicubic")`` does, with antialiasing.

    Args:
        image: uint8 (H, W) or (H, W, C), any channel order; H and W multiples of ``scale``.
        scale: whole number.
        border: "symmetric" is current MATLAB; "replicate" made the common Set5, Set14, BSD100 and Urban100 files.

    Returns:
        uint8 (H / scale, W / scale[, C]). MATLAB rounds to uint8 between the two dimensions, rows first; so does this.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ValueError(f"image must be uint8 (H, W) or (H, W, C), not {image.dtype} {image.shape}")
    height, width = image.shape[:2]
    if height % scale or width % scale or not height or not width:
        raise ValueError(f"image of {height}x{width}: height and width must be multiples of {scale}")
    if border not in ("symmetric", "replicate"):
        raise ValueError(f"border must be symmetric or replicate, not {border!r}")
    rows = _downscale_rows(image, scale, border)
    return np.ascontiguousarray(_downscale_rows(rows.swapaxes(0, 1), scale, border).swapaxes(0, 1))


def _downscale_rows(image: np.ndarray, scale: int, border: str) -> np.ndarray:
    """Downscale the first axis. With a whole scale every output row sees the same weights."""
    taps = np.arange(4 * scale + 1)
    centre = (scale - 1) / 2  # of output row 0, in input rows
    first = int(np.floor(centre - 2 * scale)) + 1
    weights = _cubic((first + taps - centre) / scale)
    weights /= weights.sum()
    length = len(image)
    positions = first + taps + scale * np.arange(length // scale)[:, None]
    if border == "replicate":
        positions = positions.clip(0, length - 1)
    else:
        mirror = np.concatenate([np.arange(length), np.arange(length)[::-1]])
        positions = mirror[positions % (2 * length)]
    total = np.zeros((length // scale, *image.shape[1:]))
    for weight, rows in zip(weights, positions.T, strict=True):
        if weight:
            total += weight * image[rows]
    return np.floor(total + 0.5).clip(0, 255).astype(np.uint8)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Cubic convolution kernel with a = -0.5 (Keys 1981)."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
