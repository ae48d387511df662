"""One number for the samples of an image, by any metric."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from basicsr.metrics import calculate_metric
from basicsr.utils import img2tensor
from basicsr.utils.registry import METRIC_REGISTRY

from srflow_plugin.devices import choose_device
from srflow_plugin.flow.precision import COMPLETE
from srflow_plugin.metrics.code_length import calculate_code_length, calculate_nll
from srflow_plugin.metrics.diversity import OF_SAMPLES

Over = Literal["mean", "best", "mean_image"]
LOWER_IS_BETTER = (
    "calculate_lpips",
    "calculate_stlpips",
    "calculate_niqe",
    "calculate_code_length",
    "calculate_nll",
    "calculate_crps",
    "calculate_energy_score",
)
ON_TENSORS = "_pt"  # BasicSR's suffix of metrics that take tensors


def is_of_samples(metric_opt: dict[str, Any]) -> bool:
    """Say whether a metric is one of several samples together, and none of a single image."""
    return METRIC_REGISTRY.get(metric_opt["type"]) in OF_SAMPLES


def is_of_network(metric_opt: dict[str, Any]) -> bool:
    """Say whether a metric is one of the network, and none of samples."""
    return METRIC_REGISTRY.get(metric_opt["type"]) in (calculate_code_length, calculate_nll)


def needs_reference(metric_opt: dict[str, Any]) -> bool:
    """Say whether a metric compares with the ground truth."""
    reference = inspect.signature(METRIC_REGISTRY.get(metric_opt["type"])).parameters.get("img2")
    return is_of_network(metric_opt) or (reference is not None and reference.default is reference.empty)


def measure(
    samples: Sequence[np.ndarray],
    gt: np.ndarray | None,
    lq: np.ndarray | None,
    metric_opt: dict[str, Any],
    code_length: float | None = None,
) -> float:
    """Measure samples (uint8 BGR, (H, W, 3) each) as a section of ``val.metrics`` says.

    Its key ``over`` says how a metric of one image becomes one of several: "mean" over the samples (default), the
    "best" of them, or the metric of their "mean_image". Metrics whose names end in ``_pt`` get the same images as RGB
    tensors (1, 3, H, W) in 0 ... 1, on the GPU if there is one.
    """
    options = {key: value for key, value in metric_opt.items() if key != "over"}
    over: Over = metric_opt.get("over", "mean")
    metric = METRIC_REGISTRY.get(metric_opt["type"])
    taken = inspect.signature(metric).parameters
    others: dict[str, Any] = {"img2": gt, "lq": lq if "lq" in taken else None}
    if is_of_network(metric_opt):
        others["code_length"] = code_length
    others = {name: value for name, value in others.items() if value is not None}
    if metric in OF_SAMPLES:
        return float(calculate_metric({"img": samples, **others}, options))
    if over == "mean_image":
        samples = [np.mean(np.stack(samples), axis=0).round().astype(np.uint8)]
    convert: Callable[[Any], Any] = _tensor if metric_opt["type"].endswith(ON_TENSORS) else lambda image: image
    others = {name: convert(value) for name, value in others.items()}
    values = [float(calculate_metric({"img": convert(sample), **others}, options)) for sample in samples]
    if over == "best":
        return min(values) if is_lower_better(metric_opt) else max(values)
    return float(np.mean(values))


def is_lower_better(metric_opt: dict[str, Any]) -> bool:
    """Say whether low values are good: by the section's ``better``, else by the metric."""
    default = "lower" if metric_opt["type"] in LOWER_IS_BETTER else "higher"
    return bool(metric_opt.get("better", default) == "lower")


def _tensor(image: np.ndarray) -> torch.Tensor:
    tensor: torch.Tensor = img2tensor(image / np.float32(255))[None]
    device = choose_device()
    return tensor.to(device) if device.type in COMPLETE else tensor  # these metrics compute in float64
