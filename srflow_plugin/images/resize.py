"""MATLAB's bicubic resizing: the LR maker of the field's benchmarks, bit for bit, and the enlargement beside it."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from srflow_plugin.flow.precision import to_complete

Border = Literal["symmetric", "replicate"]
ROWS_AT_ONCE = 16  # output rows of one matrix product
MARGIN = 2  # LR pixels along an edge that the filter makes of what lies beyond it, too


def bicubic_downscale(image: np.ndarray, scale: int, border: Border = "symmetric") -> np.ndarray:
    """Downscale as MATLAB's ``imresize(image, 1/scale, "bicubic")`` does, with antialiasing.

    Args:
        image: uint8 (H, W) or (H, W, C), any channel order; H and W multiples of ``scale``.
        scale: whole number.
        border: "symmetric" is current MATLAB; "replicate" made the common Set5, Set14, BSD100 and Urban100 files.

    Returns:
        uint8 (H / scale, W / scale[, C]). MATLAB rounds to uint8 between the two dimensions, rows first; so does this.

    >>> bicubic_downscale(np.full((8, 12, 3), 7, np.uint8), 4)[:, :, 0]
    array([[7, 7, 7],
           [7, 7, 7]], dtype=uint8)
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ValueError(f"image must be uint8 (H, W) or (H, W, C), not {image.dtype} {image.shape}")
    _check(image.shape[0], image.shape[1], scale, border)
    rows = _downscale_rows(image, scale, border)
    return np.ascontiguousarray(_downscale_rows(rows.swapaxes(0, 1), scale, border).swapaxes(0, 1))


class Downscaler:
    """Downscale of an image, whose rows come and go from top to bottom, by any ratio.

    As MATLAB's ``imresize(image, ratio, "bicubic")`` does, with antialiasing: H x W become ceil(ratio H) x
    ceil(ratio W), rounded to whole levels between the two dimensions, rows first. :func:`bicubic_downscale` is the same
    for whole scales.

    Args:
        height, width: of the image.
        ratio: above 0, at most 1.
    """

    def __init__(self, height: int, width: int, ratio: float) -> None:
        self.height, self.width = (scaled_length(length, ratio) for length in (height, width))
        self._rows, self._row_weights = _contributions(height, ratio)
        self._columns, self._column_weights = _contributions(width, ratio)
        self._needed = self._rows.max(1)  # of each row
        self._kept: np.ndarray | None = None
        self._first, self._done = 0, 0

    def put(self, rows: np.ndarray) -> np.ndarray:
        """Take rows, uint8 or uint16 (rows, W[, C]); give those that can be made, which may be none."""
        kept = rows if self._kept is None else np.concatenate([self._kept, rows])
        there = self._first + len(kept)
        ready = int(np.searchsorted(np.maximum.accumulate(self._needed), there))
        made = slice(self._done, ready)
        narrow = _weighted(kept, self._rows[made] - self._first, self._row_weights[made])
        result = _weighted(narrow.swapaxes(0, 1), self._columns, self._column_weights).swapaxes(0, 1)
        self._done = ready
        first = int(self._rows[ready:].min()) if ready < len(self._rows) else there
        self._kept, self._first = kept[first - self._first :], first
        return np.ascontiguousarray(result)


def scaled_length(length: int, ratio: float) -> int:
    """Compute the rows or columns that MATLAB's imresize makes of so many."""
    return int(np.ceil(round(length * ratio, 9)))


def _contributions(length: int, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Find the input rows of each output row, and their weights: two arrays (output rows, taps)."""
    centres = (np.arange(scaled_length(length, ratio)) + 0.5) / ratio - 0.5
    taps = np.floor(centres - 2 / ratio).astype(int)[:, None] + np.arange(int(np.ceil(4 / ratio)) + 2)
    weights = _cubic(ratio * (centres[:, None] - taps))
    rows = _inside(taps, length, "symmetric")
    rows = np.where(weights == 0, rows[:, rows.shape[1] // 2, None], rows)
    return rows, weights / weights.sum(1, keepdims=True)


def _weighted(image: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum weighted rows, rounded to the levels of ``image``."""
    total = np.zeros((len(rows), *image.shape[1:]))
    for tap in range(rows.shape[1]):
        used = weights[:, tap] != 0
        share = weights[used, tap].reshape(-1, *[1] * (image.ndim - 1))
        total[used] += share * image[rows[used, tap]]
    rounded: np.ndarray = np.floor(total + 0.5).clip(0, np.iinfo(image.dtype).max).astype(image.dtype)
    return rounded


def differentiable_downscale(images: Tensor, scale: int, border: Border = "symmetric") -> Tensor:
    """Downscale by the same filter without rounding, for losses, on any device and in any type.

    (B, C, H, W) -> (B, C, H / scale, W / scale).

    :func:`bicubic_downscale` rounds and clips after each of the two dimensions; this does neither.
    """
    height, width = images.shape[2:]
    _check(height, width, scale, border)
    rows, columns = (
        torch.from_numpy(_dense_weights(length, scale, border)).to(images.device, images.dtype)
        for length in (height, width)
    )
    return rows @ images @ columns.T


def without_margin(images: Tensor) -> Tensor:
    """Leave out the two outermost pixels of downscaled patches: they depend on what lies around a patch.

    (B, C, h, w) -> (B, C, h - 4, w - 4).
    """
    return images[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


def bicubic_upscale(images: Tensor, scale: int) -> Tensor:
    """Enlarge as MATLAB's ``imresize(image, scale, "bicubic")`` does, without rounding, any device and type.

    (B, C, h, w) -> (B, C, scale*h, scale*w), not clamped.
    """
    enlarged = _enlarge_rows(to_complete(images).double(), scale)
    return _enlarge_rows(enlarged.transpose(2, 3), scale).transpose(2, 3).to(images.dtype).to(images.device)


def _enlarge_rows(images: Tensor, scale: int) -> Tensor:
    """Enlarge the third dimension: each output row is a sum of four input rows."""
    length = images.shape[2]
    centres = (np.arange(scale * length) + 0.5) / scale - 0.5
    first = np.floor(centres).astype(int) - 1
    total = torch.zeros((), dtype=images.dtype, device=images.device)
    for tap in range(4):
        weights = torch.from_numpy(_cubic(centres - first - tap)).to(images)
        rows = torch.from_numpy(_inside(first + tap, length, "symmetric")).to(images.device)
        total = total + images.index_select(2, rows) * weights[:, None]
    return total


def _check(height: int, width: int, scale: int, border: str) -> None:
    if height % scale or width % scale or not height or not width:
        raise ValueError(f"image of {height}x{width}: height and width must be multiples of {scale}")
    if border not in ("symmetric", "replicate"):
        raise ValueError(f"border must be symmetric or replicate, not {border!r}")


def _downscale_rows(image: np.ndarray, scale: int, border: str) -> np.ndarray:
    """Downscale the first axis: many small matrix products, each of the same weights with a window of rows."""
    first, weights = _weights(scale)
    length = len(image) // scale
    count = min(ROWS_AT_ONCE, length)
    # Weights of scale 2 and 4 are such multiples of powers of 2 that float32 adds them without error.
    exact = np.float32 if scale in (2, 4) else np.float64
    matrix = np.zeros((count, scale * (count - 1) + len(weights)), exact)
    for row in range(count):
        matrix[row, scale * row : scale * row + len(weights)] = weights

    below = -(-length // count) * count * scale - len(image)  # to whole windows
    positions = np.arange(first, len(image) + below + len(weights) + first)
    rows = image[_inside(positions, len(image), border)].reshape(len(positions), -1).astype(exact)
    windows = np.lib.stride_tricks.sliding_window_view(rows, matrix.shape[1], axis=0)[:: scale * count]
    total = np.matmul(matrix, windows.swapaxes(1, 2)).reshape(-1, *image.shape[1:])[:length]
    total += 0.5  # the rest of rounding is the cut to whole numbers
    rounded: np.ndarray = total.clip(0, 255, out=total).astype(np.uint8)
    return rounded


def _dense_weights(length: int, scale: int, border: str) -> np.ndarray:
    """Write the downscale of one dimension as a matrix (length / scale, length)."""
    first, weights = _weights(scale)
    matrix = np.zeros((length // scale, length))
    for row in range(length // scale):
        np.add.at(matrix[row], _inside(scale * row + first + np.arange(len(weights)), length, border), weights)
    return matrix


def _weights(scale: int) -> tuple[int, np.ndarray]:
    """Find the first input row of output row 0, and the weights from there on; row n's is n * scale further."""
    taps = np.arange(4 * scale + 1)
    centre = (scale - 1) / 2
    first = int(np.floor(centre - 2 * scale)) + 1
    weights = _cubic((first + taps - centre) / scale)
    return first, weights / weights.sum()


def _inside(positions: np.ndarray, length: int, border: str) -> np.ndarray:
    """Find the rows that stand in for those beyond the border."""
    if border == "replicate":
        return positions.clip(0, length - 1)
    mirror = np.concatenate([np.arange(length), np.arange(length)[::-1]])
    rows: np.ndarray = mirror[positions % (2 * length)]
    return rows


def _cubic(x: np.ndarray) -> np.ndarray:
    """Cubic convolution kernel with a = -0.5 (Keys 1981)."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
