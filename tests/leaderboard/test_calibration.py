"""Spread against error, over a data set."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from srflow_plugin.leaderboard.calibration import calibrated_temperature, draw_figure, pooled, sentences
from srflow_plugin.metrics.calibration import spread_and_error


def row(tau: float, ratio: float, **values: float) -> dict[str, Any]:
    scores = {"crps": 2.0, "energy_score": 2.0, "distance": 0.2, **values}
    return {"method": f"net tau {tau:g}", "tau": tau, "rmse": 10.0, "predicted_rmse": 10 * ratio, **scores}


def test_images_are_put_together_by_their_values() -> None:
    rng = np.random.default_rng(0)
    stacks = [rng.integers(0, 256, (4, side, side, 3), dtype=np.uint8) for side in (8, 16)]
    images = [{"spread": spread_and_error(list(stack[1:]), stack[0])} for stack in stacks]
    errors = [np.square(stack[1:].mean(0) - stack[0]).ravel() for stack in stacks]
    assert pooled(images)["rmse"] == pytest.approx(math.sqrt(np.concatenate(errors).mean()))
    assert pooled([*images, {}]) == {}


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [((0.5, 0.8, 1.25), "at tau 0.85"), ((0.5, 0.8, 0.9), "above tau 0.9"), ((1.1, 1.2, 1.3), "below tau 0.7")],
)
def test_the_calibrated_temperature_lies_where_the_two_errors_meet(ratios: tuple[float, ...], expected: str) -> None:
    rows = [row(tau, ratio) for tau, ratio in zip((0.7, 0.8, 0.9), ratios, strict=True)]
    assert calibrated_temperature(rows[::-1]) == expected


def test_a_network_of_several_temperatures_is_told_about() -> None:
    rows = [row(0.8, 0.8, crps=1.5), row(0.9, 1.25, distance=0.1), {"method": "bicubic", "tau": None}]
    rows.append({**row(0.7, 1.0, crps=0.1), "method": "net tau learned", "tau": "learned"})  # one image is no spread
    (said,) = sentences(rows, "LPIPS alex")
    assert said == (
        "net: samples are as far apart as they are wrong at tau 0.85; lowest CRPS at tau 0.8, energy score at tau 0.8, "
        "LPIPS alex at tau 0.9."
    )
    assert sentences(rows[:1], "LPIPS alex") == []


def test_a_figure_is_drawn_where_there_are_samples(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    gt, *samples = rng.integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    spread = pooled([{"spread": spread_and_error(samples, gt)}])
    draw_figure(tmp_path / "a.png", [{**row(0.8, 1), **spread, "coverage_50": 50.0, "coverage_95": 90.0}], "set")
    assert len(set(Image.open(tmp_path / "a.png").convert("L").tobytes())) > 10
    draw_figure(tmp_path / "none.png", [{"method": "bicubic", "tau": None}], "set")
    assert not (tmp_path / "none.png").exists()
