"""Is the spread of a method's samples as large as their error: over a data set, in numbers, a sentence and a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from srflow_plugin.leaderboard.draw import family_of
from srflow_plugin.metrics.calibration import BIN_EDGES
from srflow_plugin.sampling.temperature import is_random

Row = dict[str, Any]  # of summary.json
MIN_VALUES_IN_BIN = 1000  # below that a point of the figure is noise


def pooled(images: Sequence[dict[str, Any]]) -> Row:
    """Put the sums of :func:`srflow_plugin.metrics.calibration.spread_and_error` of images together.

    Returns:
        The sums as "spread"; "rmse" of the samples' mean; "predicted_rmse", what it would be if the samples were right.
    """
    if not all("spread" in image for image in images):
        return {}
    names = images[0]["spread"]
    spread = {name: np.sum([image["spread"][name] for image in images], axis=0) for name in names}
    count, predicted, squared = (float(spread[name].sum()) for name in ("count", "predicted", "squared"))
    return {
        "rmse": math.sqrt(squared / count),
        "predicted_rmse": math.sqrt(predicted / count),
        "spread": {name: sums.tolist() for name, sums in spread.items()},
    }


def calibrated_temperature(rows: Sequence[Row]) -> str:
    """Say at which temperature the predicted error is the error, between those of a network's rows."""
    curve = sorted((row["tau"], math.log(row["predicted_rmse"] / row["rmse"])) for row in rows)
    if curve[0][1] > 0:
        return f"below tau {curve[0][0]:g}"
    if curve[-1][1] < 0:
        return f"above tau {curve[-1][0]:g}"
    taus, logs = zip(*curve, strict=True)
    return f"at tau {np.interp(0, logs, taus):.2f}"


def sentences(rows: Sequence[Row], distance: str) -> list[str]:
    """Say for each network of a table at which temperature it is calibrated, and at which its scores are best."""
    families: dict[str, list[Row]] = {}
    for row in rows:
        if is_random(row["tau"]) and row.get("rmse") and row.get("predicted_rmse"):
            families.setdefault(family_of(row["method"]), []).append(row)
    best = {"CRPS": "crps", "energy score": "energy_score", distance: "distance"}
    found = []
    for family, of_one in families.items():
        if len(of_one) > 1:
            lowest = [f"{title} at tau {min(of_one, key=lambda row: row[key])['tau']:g}" for title, key in best.items()]
            calibrated = f"as far apart as they are wrong {calibrated_temperature(of_one)}"
            found.append(f"{family}: samples are {calibrated}; lowest {', '.join(lowest)}.")
    return found


def draw_figure(path: Path, rows: Sequence[Row], title: str) -> None:
    """Draw error against predicted error in bins, and coverage against its level, a line for each method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in rows if "spread" in row]
    if not rows:
        return
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6))
    for row in rows:
        count, predicted, squared = (np.array(row["spread"][name]) for name in ("count", "predicted", "squared"))
        full = (count >= MIN_VALUES_IN_BIN) & (predicted > 0)  # of a logarithm
        points = (np.sqrt(values[full] / count[full]) for values in (predicted, squared))
        left.plot(*points, "o-", markersize=3, label=row["method"])
        levels = [int(key.removeprefix("coverage_")) for key in row if key.startswith("coverage_")]
        right.plot(levels, [row[f"coverage_{level}"] for level in levels], "o-", markersize=3, label=row["method"])
    left.set(xscale="log", yscale="log", xlabel="predicted RMSE, grey levels (values alike put together)")
    left.set(ylabel="RMSE of the samples' mean", title=f"{title}: above the line samples are too alike")
    left.plot(BIN_EDGES[[0, -1]], BIN_EDGES[[0, -1]], ":", color="grey")
    right.set(xlabel="central interval of the samples, %", ylabel="of the ground truth in it, %", title="coverage")
    right.plot([0, 100], [0, 100], ":", color="grey")
    right.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
