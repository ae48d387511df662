"""Metrics of several samples of one image. ``img`` is a list; SRFlowModel hands all samples of a temperature over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from srflow_plugin.images.pictures import spread
from srflow_plugin.metrics.perceptual import Distance, compare
from srflow_plugin.metrics.published import Net

OF_SAMPLES: set[Callable[..., float]] = set()


def of_samples(metric: Callable[..., float]) -> Callable[..., float]:
    """Mark a metric that takes all samples at once."""
    OF_SAMPLES.add(metric)
    return metric


@of_samples
def calculate_diversity(
    img: Sequence[np.ndarray], img2: np.ndarray, distance: Distance = "lpips", net: Net = "alex", **kwargs: Any
) -> float:
    """Diversity score of the NTIRE challenges on learning the super-resolution space (2021, 2022), in percent.

    ``S = 100 (G - L) / G``: G is the smallest mean distance of a sample to the ground truth, L the mean over pixels of
    the smallest distance that a sample has there. With ten samples it is the challenge's S10; of one sample it is 0.

    Args:
        img: samples, uint8 BGR (H, W, 3) each.
        img2: ground truth; the challenge crops it to a multiple of 8.
        distance, net: "lpips" with "alex" is the challenge's.
    """
    comparison = compare(img, img2, distance, net)
    closest_sample = min(comparison.map_means)
    return 100 * (closest_sample - comparison.nearest) / closest_sample if closest_sample > 0 else 0.0


@of_samples
def calculate_pixel_std(img: Sequence[np.ndarray], img2: np.ndarray | None = None, **kwargs: Any) -> float:
    """Standard deviation over samples (uint8, (H, W, C) each) in grey levels: the mean over pixels and channels.

    Unbiased in the number of samples where they are Gaussian, see :func:`srflow_plugin.images.pictures.spread`. One
    sample, as at temperature 0, has none: 0.
    """
    return float(spread(img).mean()) if len(img) > 1 else 0.0
