"""One number for the samples of an image, by any metric."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from basicsr.metrics import calculate_metric
from basicsr.utils.registry import METRIC_REGISTRY

from srflow_plugin.metrics.diversity import OF_SAMPLES

Over = Literal["mean", "best", "mean_image"]


def is_of_samples(metric_opt: dict[str, Any]) -> bool:
    """Whether a metric says nothing about a single image."""
    return METRIC_REGISTRY.get(metric_opt["type"]) in OF_SAMPLES


def measure(
    samples: Sequence[np.ndarray], gt: np.ndarray | None, lq: np.ndarray | None, metric_opt: dict[str, Any]
) -> float:
    """Measure samples (uint8 BGR, (H, W, 3) each) as a section of ``val.metrics`` says.

    Its key ``over`` says how a metric of one image becomes one of several: "mean" over the samples (default), the
    "best" of them, or the metric of their "mean_image".
    """
    options = {key: value for key, value in metric_opt.items() if key != "over"}
    over: Over = metric_opt.get("over", "mean")
    metric = METRIC_REGISTRY.get(metric_opt["type"])
    others = {"img2": gt, "lq": lq if "lq" in inspect.signature(metric).parameters else None}
    others = {name: image for name, image in others.items() if image is not None}
    if metric in OF_SAMPLES:
        return float(calculate_metric({"img": samples, **others}, options))
    if over == "mean_image":
        samples = [np.mean(np.stack(samples), axis=0).round().astype(np.uint8)]
    values = [float(calculate_metric({"img": sample, **others}, options)) for sample in samples]
    if over == "best":
        return min(values) if metric_opt.get("better") == "lower" else max(values)
    return float(np.mean(values))
