"""The ways in which a validation super-resolves each image, and the metrics that each is measured by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from srflow_plugin.metrics.samples import is_lower_better, is_of_network, is_of_samples
from srflow_plugin.sampling.temperature import Temperature, is_random, label


class ValVariant(NamedTuple):
    """One way to super-resolve the validation images, with the metrics that it is measured by."""

    suffix: str  # of the metrics' names and of the images' files
    temperature: Temperature | None  # None: bicubic upscaling
    metrics: dict[str, dict[str, Any]]


def make_val_variants(
    temperatures: Sequence[Temperature], bicubic: bool, metrics: Mapping[str, dict[str, Any]]
) -> list[ValVariant]:
    """Make the variants that the options of these names under ``val`` ask for."""
    suffixes: dict[str, Temperature | None] = {
        f"_tau{label(temperature)}" if len(temperatures) > 1 else "": temperature for temperature in temperatures
    }
    if bicubic:
        suffixes["_bicubic"] = None
    return [
        ValVariant(suffix, temperature, _of_variant(metrics, suffix, temperature, is_first=number == 0))
        for number, (suffix, temperature) in enumerate(suffixes.items())
    ]


def _of_variant(
    metrics: Mapping[str, dict[str, Any]], suffix: str, temperature: Temperature | None, is_first: bool
) -> dict[str, dict[str, Any]]:
    """Metrics of a variant, by their names in the log: those of the network once, those of samples where there are."""
    has_samples = is_random(temperature)
    return {
        name + ("" if is_of_network(metric_opt) else suffix): {
            **metric_opt,
            "better": "lower" if is_lower_better(metric_opt) else "higher",
        }
        for name, metric_opt in metrics.items()
        if (has_samples or not is_of_samples(metric_opt)) and (is_first or not is_of_network(metric_opt))
    }
