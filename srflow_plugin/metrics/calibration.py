"""Is the spread of samples true: are they as far from each other as the ground truth is from them?

Samples of a calibrated network and the ground truth are draws from one distribution. All metrics here are of uint8
images (H, W, C). From two samples on they are unbiased in the number of samples: more change their noise only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from srflow_plugin.metrics.diversity import of_samples

BIN_EDGES = 2.0 ** np.arange(-2, 6.5, 0.5)  # grey levels of predicted standard deviation, 0.25 to 45


@of_samples
def calculate_crps(img: Sequence[np.ndarray], img2: np.ndarray, crop_border: int = 0, **kwargs: Any) -> float:
    """Continuous ranked probability score in grey levels, the mean over pixels and channels; low is good.

    ``E|X - y| - E|X - X'| / 2`` of samples X and the ground truth y (Gneiting and Raftery, JASA 2007; unbiased: Ferro,
    QJRMS 2014). It asks for samples that are near and rightly spread. Of one sample it is the mean absolute error.
    """
    samples, gt = _stacked(img, img2, crop_border)
    number = len(samples)
    error = np.abs(samples - gt).mean()
    if number == 1:
        return float(error)
    ranks = (2 * np.arange(number) - number + 1).reshape(-1, 1, 1, 1)  # sums of differences are sums of sorted samples
    between = (ranks * np.sort(samples, axis=0)).sum(0).mean() / (number * (number - 1))
    return float(error - between)


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
    samples, gt = (_patches(image, patch) for image in _stacked(img, img2, crop_border))
    error = _distance(samples, gt).mean()
    pairs = [_distance(one, other).mean() for one, other in combinations(samples, 2)]
    return float(error - (np.mean(pairs) / 2 if pairs else 0))


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
    samples, gt = _stacked(img, img2, crop_border)
    low = (samples < gt).sum(0) / (len(samples) + 1)
    high = low + ((samples == gt).sum(0) + 1) / (len(samples) + 1)
    begin, end = 0.5 - level / 200, 0.5 + level / 200
    inside = np.clip(np.minimum(high, end) - np.maximum(low, begin), 0, None) / (high - low)
    return float(100 * inside.mean())


def spread_and_error(img: Sequence[np.ndarray], img2: np.ndarray) -> dict[str, list[float]]:
    """Sum up, for pixels of like predicted standard deviation, what the samples predict and what is.

    A mean of n samples misses the ground truth by a variance of (1 + 1/n) times the samples' own.

    Returns:
        For each of the bins between BIN_EDGES, and one below and one above: "count" of values, and sums of the squared
        error of the samples' mean as "predicted" and as it is, "squared".
    """
    samples, gt = _stacked(img, img2, 0)
    variance = samples.var(0, ddof=1)
    bins = np.digitize(np.sqrt(variance), BIN_EDGES).ravel()
    sums = {
        "count": np.ones_like(variance),
        "predicted": (1 + 1 / len(samples)) * variance,
        "squared": np.square(samples.mean(0) - gt),
    }
    return {name: np.bincount(bins, values.ravel(), len(BIN_EDGES) + 1).tolist() for name, values in sums.items()}


def _stacked(img: Sequence[np.ndarray], img2: np.ndarray, border: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples (n, H, W, C) and ground truth (H, W, C) as numbers, without their borders."""
    inner = (slice(border, img2.shape[0] - border), slice(border, img2.shape[1] - border))
    return np.stack([sample[inner] for sample in img]).astype(np.float32), img2[inner].astype(np.float32)


def _patches(image: np.ndarray, side: int) -> np.ndarray:
    """(..., H, W, C) -> (..., patches, values of one)."""
    *others, height, width, channels = image.shape
    rows, columns = height // side, width // side
    if not rows or not columns:
        raise ValueError(f"patch must be at most {min(height, width)} in an image of {height}x{width}, not {side}")
    image = image[..., : rows * side, : columns * side, :].reshape(*others, rows, side, columns, side, channels)
    return np.moveaxis(image, -4, -3).reshape(*others, rows * columns, side * side * channels)


def _distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    distance: np.ndarray = np.sqrt(np.square(one - other).mean(-1))
    return distance
