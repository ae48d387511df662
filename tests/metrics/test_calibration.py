"""Is the spread of samples true: constructed cases whose answer is known."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from srflow_plugin.metrics import calibration
from srflow_plugin.metrics.calibration import BIN_EDGES, calculate_energy_score, spread_and_error
from srflow_plugin.metrics.samples import measure

SIGMA = 8.0  # of the ground truth about its mean; far above the rounding to grey levels


def draws(number: int, spread: float = 1.0, side: int = 160) -> tuple[list[np.ndarray], np.ndarray]:
    """Samples of a Gaussian about a mean that differs from pixel to pixel, ``spread`` times as wide as the truth's."""
    rng = np.random.default_rng(number)
    mean = rng.uniform(80, 170, (side, side, 3))
    gt, *samples = (
        (mean + factor * SIGMA * rng.standard_normal(mean.shape)).round().clip(0, 255).astype(np.uint8)
        for factor in [1.0, *[spread] * number]
    )
    return samples, gt


def of(samples: list[np.ndarray], gt: np.ndarray, name: str, **options: float) -> float:
    return measure(samples, gt, None, {"type": f"calculate_{name}", **options})


@pytest.mark.parametrize("number", [2, 10, 60])
@pytest.mark.parametrize("level", [50, 80, 95])
def test_coverage_of_the_true_distribution_is_its_level_for_any_number_of_samples(number: int, level: int) -> None:
    assert of(*draws(number), "coverage", level=level) == pytest.approx(level, abs=1)


@pytest.mark.parametrize("spread", [0.5, 2])
@pytest.mark.parametrize("level", [50, 80, 95])
def test_coverage_of_half_and_twice_the_spread(spread: float, level: int) -> None:
    normal = NormalDist()
    expected = 100 * (2 * normal.cdf(spread * normal.inv_cdf(0.5 + level / 200)) - 1)
    # A hundred samples do not know their far quantiles well, which brings what is false a little nearer to the level.
    assert of(*draws(100, spread, side=100), "coverage", level=level) == pytest.approx(expected, abs=2)


def test_coverage_of_samples_that_are_all_the_ground_truth_is_the_level() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert of([black] * 5, black, "coverage", level=80) == pytest.approx(80)
    assert of([black] * 99, black + 9, "coverage", level=80) == pytest.approx(0)


def test_crps_is_that_of_a_gaussian_whatever_the_number_of_samples() -> None:
    # Gneiting and Raftery: CRPS(N(m, s^2), y); its mean for y ~ N(m, SIGMA^2)
    for spread in (0.5, 1, 2):
        s = spread * SIGMA
        expected = math.sqrt(2 / math.pi) * math.sqrt(s**2 + SIGMA**2) - s / math.sqrt(math.pi)
        for number in (2, 5, 20):
            assert of(*draws(number, spread), "crps") == pytest.approx(expected, abs=0.06), (spread, number)
    samples, gt = draws(1)
    assert of(samples, gt, "crps") == pytest.approx(np.abs(samples[0].astype(float) - gt).mean(), rel=1e-5)


@pytest.mark.parametrize("number", [1, 2, 3, 10])
def test_crps_is_its_definition(number: int) -> None:
    samples, gt = draws(number, side=17)
    x, y = np.stack(samples).astype(float), gt.astype(float)
    between = np.abs(x[:, None] - x).mean((2, 3, 4)).sum() / max(1, number * (number - 1))
    assert of(samples, gt, "crps") == pytest.approx(np.abs(x - y).mean() - between / 2, rel=1e-12)


def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, gt = draws(4, side=37)

    def all_scores() -> list[float]:
        found = [of(samples, gt, name, crop_border=2) for name in ("crps", "energy_score", "coverage")]
        return [*found, *np.ravel([*spread_and_error(samples, gt).values()])]

    whole = all_scores()
    for values in (1, 4 * 33 * 3 * 9, 4 * 33 * 3 * 20):
        monkeypatch.setattr(calibration, "BAND_VALUES", values)
        assert all_scores() == pytest.approx(whole, rel=1e-6)


def test_energy_score_is_its_definition_and_does_not_depend_on_the_number_of_samples() -> None:
    samples, gt = draws(3, side=17)
    (a, b, c), y = (np.stack([image.astype(float) for image in images])[..., :16, :16, :] for images in (samples, [gt]))

    def far(one: np.ndarray, other: np.ndarray) -> float:
        blocks = np.square(one - other).reshape(2, 8, 2, 8, 3).mean((1, 3, 4))
        return float(np.sqrt(blocks).mean())

    expected = np.mean([far(x, y[0]) for x in (a, b, c)]) - np.mean([far(a, b), far(a, c), far(b, c)]) / 2
    assert of(samples, gt, "energy_score") == pytest.approx(expected, rel=1e-5)
    few, many = (of(*draws(number), "energy_score") for number in (2, 20))
    assert few == pytest.approx(many, abs=0.05)
    assert of(*draws(20), "energy_score") < min(of(*draws(20, spread), "energy_score") for spread in (0.5, 2))


@pytest.mark.parametrize("number", [2, 10])
def test_the_predicted_error_is_the_error_where_samples_are_right(number: int) -> None:
    for spread in (0.5, 1, 2):
        sums = {name: np.sum(values) for name, values in spread_and_error(*draws(number, spread)).items()}
        ratio = math.sqrt(sums["predicted"] / sums["squared"])
        expected = math.sqrt(spread**2 * (1 + 1 / number) / (1 + spread**2 / number))
        assert ratio == pytest.approx(expected, rel=0.02)
    assert len(spread_and_error(*draws(2))["count"]) == len(BIN_EDGES) + 1


def test_borders_and_impossible_options() -> None:
    samples, gt = draws(2, side=20)
    framed = [image.copy() for image in (*samples, gt)]
    for image in framed[:2]:
        image[0], image[:, -1] = 255, 0
    for name in ("crps", "energy_score", "coverage"):
        inner = of([image[4:-4, 4:-4] for image in samples], gt[4:-4, 4:-4], name)
        assert of(framed[:2], gt, name, crop_border=4) == pytest.approx(inner)
    with pytest.raises(ValueError, match="level must lie between 0 and 100 percent, not 100"):
        of(samples, gt, "coverage", level=100)
    with pytest.raises(ValueError, match="patch must be at most 20 in an image of 20x20, not 21"):
        calculate_energy_score(samples, gt, patch=21)
