"""Metrics of other packages, by their dotted names: torchmetrics' own, and stand-ins that are called as pyiqa's."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_metric
from torch import nn

from srflow_plugin.errors import UserError
from srflow_plugin.metrics import objects
from srflow_plugin.metrics.objects import better_of, find_metric
from srflow_plugin.metrics.samples import is_lower_better, measure
from srflow_plugin.training.setup import check_options
from tests.helpers import files_below, noisy, train

PSNR, SSIM = "torchmetrics.image.PeakSignalNoiseRatio", "torchmetrics.image.StructuralSimilarityIndexMeasure"
LPIPS = "torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity"


class Distance(nn.Module):
    """A metric that is called as pyiqa's are: batches (B, 3, H, W) in [0, 1], a score for each image."""

    def __init__(self, lower_better: bool = True, factor: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((), factor))
        self.lower_better = lower_better
        self.calls = 0

    def forward(self, target: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        self.calls += 1
        assert ref is not None and target.shape[1] == 3 and target.dtype == torch.float32
        return (self.weight * (target - ref).abs().mean(dim=(1, 2, 3)))[:, None]


MADE: list[Distance] = []


def create(metric_name: str, lower_better: bool = True, **arguments: Any) -> Distance:
    if metric_name != "distance":
        raise ValueError(f"no metric {metric_name}")
    MADE.append(Distance(lower_better, **arguments))
    return MADE[-1]


def red_of(sr: torch.Tensor, gt: torch.Tensor, power: int = 1) -> float:
    return float(sr[0, 0].mean() ** power)


@pytest.fixture(autouse=True)
def theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("their_metrics")
    vars(module).update(create=create, Distance=Distance, red_of=red_of, ready=Distance(False), number=3)
    vars(module).update(two=lambda sr, gt: torch.zeros(2), words=lambda sr, gt: "far", nothing=lambda: None)
    monkeypatch.setitem(sys.modules, "their_metrics", module)
    monkeypatch.setattr(objects, "_made", {})
    MADE.clear()


def their_ssim(image: np.ndarray, reference: np.ndarray, border: int) -> list[float]:
    """Compute torchmetrics' SSIM without us: over padded borders, too, as it does; and where windows are whole."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    inner = slice(border, -border or None)
    one, other = (
        torch.from_numpy(np.ascontiguousarray(array[inner, inner, ::-1].transpose(2, 0, 1)))[None] / 255
        for array in (image, reference)
    )
    whole, everywhere = structural_similarity_index_measure(one, other, data_range=1.0, return_full_image=True)
    return [float(whole), float(everywhere[..., 5:-5, 5:-5].mean())]


@pytest.mark.parametrize("border", [0, 4])
def test_psnr_and_ssim_of_torchmetrics_are_ours(photograph: np.ndarray, border: int) -> None:
    pytest.importorskip("torchmetrics", reason="it comes with the extra test")
    for seed in range(3):  # each image's value is its own, whatever was measured before
        other = noisy(photograph, seed, 5 * (seed + 1))
        found = measure([other], photograph, None, {"type": PSNR, "data_range": 1.0, "crop_border": border})
        ours = measure([other], photograph, None, {"type": "calculate_psnr", "crop_border": border})
        assert found == pytest.approx(ours, abs=1e-4)
        ours = measure([other], photograph, None, {"type": "calculate_ssim", "crop_border": border})
        whole, inside = their_ssim(other, photograph, border)
        section = {"type": SSIM, "data_range": 1.0, "crop_border": border}
        assert measure([other], photograph, None, section) == pytest.approx(whole, abs=1e-6)
        assert inside == pytest.approx(ours, abs=1e-5) and whole != pytest.approx(ours, abs=1e-4)
    assert not is_lower_better({"type": PSNR, "data_range": 1.0})


def test_a_metric_of_one_image_gets_the_sample(photograph: np.ndarray) -> None:
    pytest.importorskip("torchmetrics", reason="it comes with the extra test")
    section = {"type": "torchmetrics.image.TotalVariation"}
    scaled = torch.from_numpy(photograph.transpose(2, 0, 1).astype(np.float32) / 255)
    expected = sum(float(scaled.diff(dim=axis).abs().sum()) for axis in (1, 2))
    assert measure([photograph], photograph[::-1], None, section) == pytest.approx(expected, rel=1e-4)


def test_lpips_of_torchmetrics_is_ours(photograph: np.ndarray, random_alexnet: None) -> None:
    pytest.importorskip("torchmetrics", reason="it comes with the extra test")
    other = noisy(photograph, 0, 20)
    section = {"type": LPIPS, "net_type": "alex", "normalize": True}
    assert better_of(section) == "lower"
    ours = measure([other], photograph, None, {"type": "calculate_lpips", "net": "alex"})
    assert measure([other], photograph, None, section) == pytest.approx(ours, rel=1e-4)


KINDS: dict[str, tuple[dict[str, Any], bool]] = {
    "a factory": ({"type": "their_metrics.create", "metric_name": "distance"}, True),
    "a factory, higher": ({"type": "their_metrics.create", "metric_name": "distance", "lower_better": False}, False),
    "a class": ({"type": "their_metrics.Distance"}, True),
    "an object": ({"type": "their_metrics.ready"}, False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_pyiqa_would_give_is_measured(kind: str, photograph: np.ndarray) -> None:
    section, is_lower = KINDS[kind]
    other = noisy(photograph, 0, 20)
    expected = np.abs(other.astype(float) - photograph).mean() / 255
    assert measure([other], photograph, None, section) == pytest.approx(expected, rel=1e-4)
    assert is_lower_better(section) == is_lower


def test_an_object_is_made_once_for_its_arguments(photograph: np.ndarray) -> None:
    section = {"type": "their_metrics.create", "metric_name": "distance"}
    samples = [noisy(photograph, seed, 20) for seed in range(2)]
    once = measure(samples, photograph, None, section)
    assert [one.calls for one in MADE] == [2]
    doubled = measure(samples, photograph, None, {**section, "factor": 2.0})
    assert doubled == pytest.approx(2 * once) and len(MADE) == 2 and not MADE[0].training


def test_a_function_is_called_with_the_samples_in_rgb(photograph: np.ndarray) -> None:
    section = {"type": "their_metrics.red_of", "power": 2, "better": "lower"}
    red = photograph[..., 2].mean() / 255
    assert measure([photograph], photograph, None, section) == pytest.approx(red**2, rel=1e-4)
    find_metric("their_metrics.red_of")
    data = {"img": photograph, "img2": photograph}  # as BasicSR's own models measure
    assert calculate_metric(data, section) == pytest.approx(red**2, rel=1e-4)
    assert is_lower_better(section) and not is_lower_better({"type": "their_metrics.red_of"})


WRONG: dict[str, tuple[str, str]] = {
    "no package": ("no_such.metric", "val.metrics.my.type: no_such.metric cannot be imported: No module named"),
    "no name": ("their_metrics.distanse", "their_metrics.distanse cannot be imported: their_metrics has no distanse"),
    "no name of a class": ("their_metrics.Distance.no", "cannot be imported: Distance has no no"),
    "a number": ("their_metrics.number", "val.metrics.my.type: their_metrics.number cannot be called: it is a int"),
    "no arguments": ("their_metrics.create", "val.metrics.my cannot be computed: no metric tensor"),
    "wrong arguments": ("{type: their_metrics.create, metric_name: a}", "cannot be computed: no metric a"),
    "unknown arguments": ("{type: their_metrics.Distance, net: a}", "cannot be computed: Distance.__init__() got an"),
    "two numbers": ("their_metrics.two", "cannot be computed: their_metrics.two gives tensor([0., 0.]), which is no"),
    "words": ("their_metrics.words", "cannot be computed: their_metrics.words gives 'far', which is no number"),
    "nothing": ("their_metrics.nothing", "their_metrics.nothing gives a NoneType, which cannot be called with (sr,"),
    "the other way": ("{type: their_metrics.Distance, better: higher}", "better: 'higher', and their_metrics.Distance"),
    "a way that is none": ("{type: their_metrics.red_of, better: up}", "val.metrics.my.better: 'up'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_line_before_anything_is_written(case: str, workplace: Path) -> None:
    given, text = WRONG[case]
    before = files_below(workplace)
    section = given if given.startswith("{") else f"{{type: {given}}}"
    with pytest.raises(UserError) as refusal:
        check_options(Path("tiny.yml"), [f"val:metrics:my={section}"])
    assert text in str(refusal.value) and "\n" not in str(refusal.value)
    assert files_below(workplace) == before


def test_a_training_and_basicsrs_own_models_validate_by_it(workplace: Path) -> None:
    own = "val:metrics:mine={type: their_metrics.create, metric_name: distance, crop_border: 2}"
    assert train("--force_yml", own, "logger:keep_best=mine_tau0", "val:save_img=false") == 0
    (log,) = workplace.glob("experiments/tiny/train_tiny_*.log")
    assert "mine_tau0" in log.read_text() and (workplace / "experiments/tiny/models/net_g_best.pth").exists()


def test_a_name_is_found_or_refused() -> None:
    with pytest.raises(UserError, match="has no nowhere"):
        find_metric("their_metrics.nowhere")
