"""One number for the samples of an image, by any metric; metrics share what they have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from basicsr.metrics import calculate_metric, calculate_psnr, calculate_ssim
from basicsr.metrics.metric_util import to_y_channel

from srflow_plugin.metrics.code_length import calculate_code_length, calculate_nll
from srflow_plugin.metrics.diversity import OF_SAMPLES
from srflow_plugin.metrics.lpips_metric import calculate_lpips, calculate_stlpips, lpips_of_each, stlpips_of_each
from srflow_plugin.metrics.objects import better_of, find_metric, image_tensor
from srflow_plugin.metrics.ssim import ssim_of_each

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
ON_Y = (calculate_psnr, calculate_ssim)  # metrics that convert all that they get, if they are to
# Metrics of one image, and the same numbers of several at once, for less.
OF_EACH: dict[Callable[..., Any], Callable[..., list[float]]] = {
    calculate_ssim: ssim_of_each,
    calculate_lpips: lpips_of_each,
    calculate_stlpips: stlpips_of_each,
}


def is_of_samples(metric_opt: dict[str, Any]) -> bool:
    """Say whether a metric is one of several samples together, and none of a single image."""
    return find_metric(metric_opt["type"]) in OF_SAMPLES


def is_of_network(metric_opt: dict[str, Any]) -> bool:
    """Say whether a metric is one of the network, and none of samples."""
    return find_metric(metric_opt["type"]) in (calculate_code_length, calculate_nll)


def needs_reference(metric_opt: dict[str, Any]) -> bool:
    """Say whether a metric compares with the ground truth."""
    reference = inspect.signature(find_metric(metric_opt["type"])).parameters.get("img2")
    return is_of_network(metric_opt) or (reference is not None and reference.default is reference.empty)


def measure(
    samples: Sequence[np.ndarray],
    gt: np.ndarray | None,
    lq: np.ndarray | None,
    metric_opt: dict[str, Any],
    code_length: float | None = None,
) -> float:
    """Measure samples by one metric, see :class:`Samples`."""
    return Samples(samples, gt, lq, code_length).measure(metric_opt)


class Samples:
    """Samples of one image, which are measured by several metrics: what these have in common is computed once.

    Args:
        samples: uint8 BGR, (H, W, 3) each.
        gt, lq: ground truth and LR image, where there are.
        code_length: of the ground truth, for the metrics of the network.
    """

    def __init__(
        self,
        samples: Sequence[np.ndarray],
        gt: np.ndarray | None,
        lq: np.ndarray | None,
        code_length: float | None = None,
    ) -> None:
        self.samples, self.gt, self.lq, self.code_length = samples, gt, lq, code_length
        self._values: dict[str, list[float]] = {}  # by the metric and its options
        self._on_y: dict[int, np.ndarray] = {}  # by the ids of images, which are all kept

    def measure(self, metric_opt: dict[str, Any]) -> float:
        """Measure the samples as a section of ``val.metrics`` says.

        Its key ``over`` says how a metric of one image becomes one of several: "mean" over the samples (default), the
        "best" of them, or the metric of their "mean_image". Metrics whose names end in ``_pt`` get the same images as
        RGB tensors (1, 3, H, W) in 0 ... 1, on the GPU if there is one.
        """
        over: Over = metric_opt.get("over", "mean")
        options = {key: value for key, value in metric_opt.items() if key != "over"}
        same = sorted((key, value) for key, value in options.items() if key != "better")
        key = repr((over == "mean_image", same))
        if key not in self._values:
            self._values[key] = self._compute(options, over)
        values = self._values[key]
        if over == "best" and not is_of_samples(metric_opt):
            return min(values) if is_lower_better(metric_opt) else max(values)
        return float(np.mean(values))

    def _compute(self, options: dict[str, Any], over: Over) -> list[float]:
        """Compute a metric: one value for each image, or one of all samples."""
        metric = find_metric(options["type"])
        others = self._others(options)
        if metric in OF_SAMPLES:
            return [float(calculate_metric({"img": self.samples, **others}, options))]
        images = [self._mean_image] if over == "mean_image" else self.samples
        is_of_tensors = options["type"].endswith(ON_TENSORS) and "." not in options["type"]
        convert: Callable[[Any], Any] = image_tensor if is_of_tensors else lambda image: image
        if metric in ON_Y and options.get("test_y_channel") and options.get("input_order", "HWC") == "HWC":
            convert, options = self._y, {**options, "test_y_channel": False}
        others = {name: convert(value) for name, value in others.items()}
        if metric in OF_EACH:
            return OF_EACH[metric]([*map(convert, images)], **others, **options)
        return [float(calculate_metric({"img": convert(image), **others}, options)) for image in images]

    @cached_property
    def _mean_image(self) -> np.ndarray:
        mean: np.ndarray = np.mean(np.stack(self.samples), axis=0).round().astype(np.uint8)
        return mean

    def _others(self, options: dict[str, Any]) -> dict[str, Any]:
        """Find what a metric gets beside the samples."""
        taken = inspect.signature(find_metric(options["type"])).parameters
        others: dict[str, Any] = {"img2": self.gt, "lq": self.lq if "lq" in taken else None}
        if is_of_network(options):
            others["code_length"] = self.code_length
        return {name: value for name, value in others.items() if value is not None}

    def _y(self, image: np.ndarray) -> np.ndarray:
        """Convert an image to Y of YCbCr, once."""
        if id(image) not in self._on_y:
            self._on_y[id(image)] = to_y_channel(image)
        return self._on_y[id(image)]


def is_lower_better(metric_opt: dict[str, Any]) -> bool:
    """Say whether low values are good: by the section's ``better``, else by the metric."""
    if "better" in metric_opt:
        return bool(metric_opt["better"] == "lower")
    if "." in metric_opt["type"]:
        return better_of(metric_opt) == "lower"
    return metric_opt["type"] in LOWER_IS_BETTER
