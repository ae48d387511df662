"""Metrics of several samples."""

from __future__ import annotations

import numpy as np
import pytest

from srflow_plugin import calculate_diversity
from srflow_plugin.metrics import diversity
from srflow_plugin.metrics.perceptual import Comparison
from srflow_plugin.metrics.samples import measure
from tests.helpers import noisy


def test_diversity_is_the_formula_on_a_constructed_case(monkeypatch: pytest.MonkeyPatch) -> None:
    # two pixels, three samples: distances (1, 4), (3, 1), (2, 2). G = min(2.5, 2, 2) = 2, L = (1 + 1) / 2 = 1
    comparison = Comparison([0.0] * 3, map_means=[2.5, 2, 2], nearest=1)
    monkeypatch.setattr(diversity, "compare", lambda *_: comparison)
    image = np.zeros((1, 2, 3), np.uint8)
    assert calculate_diversity([image] * 3, image) == pytest.approx(50)


def test_diversity_of_one_sample_or_equal_ones_is_0(photograph: np.ndarray) -> None:
    sample = noisy(photograph, 0)
    assert calculate_diversity([sample], photograph, distance="stlpips") == 0
    assert calculate_diversity([sample, sample], photograph, distance="stlpips") == 0
    assert calculate_diversity([photograph, sample], photograph, distance="stlpips") == 0
    several = [noisy(photograph, seed) for seed in range(3)]
    assert 0 < calculate_diversity(several, photograph, distance="stlpips") < 100


def test_pixel_std() -> None:
    samples = [np.full((4, 5, 3), value, np.uint8) for value in (10, 20, 30)]
    assert measure(samples, None, None, {"type": "calculate_pixel_std"}) == pytest.approx(10 / 0.8862269)  # c4(3)
    assert measure(samples[:1], None, None, {"type": "calculate_pixel_std"}) == 0
