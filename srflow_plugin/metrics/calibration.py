"""Is the spread of samples true: are they as far from each other as the ground truth is from them?

Samples of a calibrated network and the ground truth are draws from one distribution. All metrics here are of uint8
images (H, W, C). From two samples on they are unbiased in the number of samples: more change their noise only.

Images are gone through in bands of rows, so that large ones take no more memory than small ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from srflow_plugin.metrics.diversity import of_samples

BAND_VALUES = 2**20  # of all samples, worked on at once
BIN_EDGES = 2.0 ** np.arange(-2, 6.5, 0.5)  # grey levels of predicted standard deviation, 0.25 to 45


@of_samples
def calculate_crps(img: Sequence[np.ndarray], img2: np.ndarray, crop_border: int = 0, **kwargs: Any) -> float:
    """Continuous ranked probability score in grey levels, the mean over pixels and channels; low is good.

    ``E|X - y| - E|X - X'| / 2`` of samples X and the ground truth y (Gneiting and Raftery, JASA 2007; unbiased: Ferro,
    QJRMS 2014). It asks for samples that are near and rightly spread. Of one sample it is the mean absolute error.
    """
    number = len(img)
    ranks = 2 * np.arange(number) - number + 1  # sums of differences are sums of sorted samples
    error = between = 0.0
    for samples, gt in _bands(img, img2, crop_border):
        error += float(np.abs(samples.astype(np.float32) - gt).sum(dtype=np.float64))
        between += float(ranks @ _sorted(samples).sum((1, 2, 3), dtype=np.float64))
    values = number * _size(img2, crop_border)
    return (error - (between / (number - 1) if number > 1 else 0)) / values


@of_samples
def calculate_energy_score(
    img: Sequence[np.ndarray], img2: np.ndarray, patch: int = 8, crop_border: int = 0, **kwargs: Any
) -> float:
    """Energy score of patches in grey levels, their mean; low is good.

    As :func:`calculate_crps` with the root mean square over a patch in place of the absolute value (Gneiting and
    Raftery, JASA 2007), so that how pixels go together counts, too. Of one sample it is the patches' mean error.

    Args:
        img: samples.
        img2: ground truth.
        patch: side of the square patches; what does not fill one at the right and below is left out.
        crop_border: pixels left out at each edge.
    """
    height, width = (size - 2 * crop_border for size in img2.shape[:2])
    if patch > min(height, width):
        raise ValueError(f"patch must be at most {min(height, width)} in an image of {height}x{width}, not {patch}")
    patches, error, between = 0, 0.0, 0.0
    for band in _bands(img, img2, crop_border, patch):
        samples, gt = (_patches(values.astype(np.float32), patch) for values in band)
        patches += gt.shape[0]
        error += float(_distance(samples, gt).sum(dtype=np.float64))
        between += sum(float(_distance(*pair).sum(dtype=np.float64)) for pair in combinations(samples, 2))
    number = len(img)
    return (error - (between / (number - 1) if number > 1 else 0)) / (number * patches)


@of_samples
def calculate_coverage(
    img: Sequence[np.ndarray], img2: np.ndarray, level: float = 80, crop_border: int = 0, **kwargs: Any
) -> float:
    """Share of values, in percent, whose ground truth lies in the central interval of ``level`` % of the samples.

    Near ``level`` the spread is true; above it is too wide, below too narrow. From the rank of the ground truth among
    the samples: where they are calibrated, every rank is equally likely, and the share is ``level`` for any number of
    samples. Where they are not, few samples bring it nearer to the level. Equal grey levels share their ranks.
    """
    if not 0 < level < 100:
        raise ValueError(f"level must lie between 0 and 100 percent, not {level}")
    begin, end = 0.5 - level / 200, 0.5 + level / 200
    inside = 0.0
    for samples, gt in _bands(img, img2, crop_border):
        low = (samples < gt).sum(0) / (len(samples) + 1)
        high = low + ((samples == gt).sum(0) + 1) / (len(samples) + 1)
        share = np.clip(np.minimum(high, end) - np.maximum(low, begin), 0, None) / (high - low)
        inside += float(share.sum())
    return 100 * inside / _size(img2, crop_border)


def spread_and_error(img: Sequence[np.ndarray], img2: np.ndarray) -> dict[str, list[float]]:
    """Sum up, for pixels of like predicted standard deviation, what the samples predict and what is.

    A mean of n samples misses the ground truth by a variance of (1 + 1/n) times the samples' own.

    Returns:
        For each of the bins between BIN_EDGES, and one below and one above: "count" of values, and sums of the squared
        error of the samples' mean as "predicted" and as it is, "squared".
    """
    total = {name: np.zeros(len(BIN_EDGES) + 1) for name in ("count", "predicted", "squared")}
    for band in _bands(img, img2, 0):
        samples, gt = (values.astype(np.float32) for values in band)
        variance = samples.var(0, ddof=1)
        bins = np.digitize(np.sqrt(variance), BIN_EDGES).ravel()
        sums = {
            "count": np.ones_like(variance),
            "predicted": (1 + 1 / len(samples)) * variance,
            "squared": np.square(samples.mean(0) - gt),
        }
        for name, values in sums.items():
            total[name] += np.bincount(bins, values.ravel(), len(BIN_EDGES) + 1)
    return {name: values.tolist() for name, values in total.items()}


def _bands(
    img: Sequence[np.ndarray], img2: np.ndarray, border: int, side: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Go through samples (n, h, W, C) and ground truth (h, W, C) without their borders, h a multiple of ``side``.

    Rows at the bottom that are no multiple of it are left out.
    """
    inner = (slice(border, img2.shape[0] - border), slice(border, img2.shape[1] - border))
    samples, gt = [sample[inner] for sample in img], img2[inner]
    height, *others = gt.shape
    at_once = max(1, BAND_VALUES // (len(samples) * math.prod(others) * side)) * side
    height -= height % side
    for row in range(0, height, at_once):
        rows = slice(row, min(row + at_once, height))
        yield np.stack([sample[rows] for sample in samples]), gt[rows]


def _size(image: np.ndarray, border: int) -> int:
    """Count the values of an image without its border."""
    height, width, channels = map(int, image.shape)
    return (height - 2 * border) * (width - 2 * border) * channels


def _sorted(samples: np.ndarray) -> np.ndarray:
    """Sort samples (n, ...) at each place: neighbours change places, n times; quicker than a sort for each place."""
    samples = samples.copy()
    for turn in range(len(samples)):
        pairs = samples[turn % 2 : turn % 2 + (len(samples) - turn % 2) // 2 * 2].reshape(-1, 2, *samples.shape[1:])
        low = np.minimum(pairs[:, 0], pairs[:, 1])
        np.maximum(pairs[:, 0], pairs[:, 1], out=pairs[:, 1])
        pairs[:, 0] = low
    return samples


def _patches(image: np.ndarray, side: int) -> np.ndarray:
    """(..., H, W, C) -> (..., patches, values of one)."""
    *others, height, width, channels = image.shape
    rows, columns = height // side, width // side
    image = image[..., : rows * side, : columns * side, :].reshape(*others, rows, side, columns, side, channels)
    return np.moveaxis(image, -4, -3).reshape(*others, rows * columns, side * side * channels)


def _distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    distance: np.ndarray = np.sqrt(np.square(one - other).mean(-1))
    return distance
