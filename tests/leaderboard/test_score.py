"""Scores of files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_metric
from skimage.data import chelsea

from srflow_plugin import bicubic_downscale, calculate_diversity, calculate_stlpips
from srflow_plugin.cli.main import srflow_command
from srflow_plugin.errors import UserError
from srflow_plugin.images.files import write_image
from srflow_plugin.leaderboard.draw import Settings
from srflow_plugin.leaderboard.score import _cores_shared, score
from srflow_plugin.leaderboard.sets import Pair
from srflow_plugin.metrics import perceptual
from srflow_plugin.metrics.perceptual import PerceptualDistance
from srflow_plugin.metrics.published import stlpips_network
from tests.helpers import noisy

OF_SAMPLES = {
    *("psnr_best", "psnr_mean_image", "diversity", "pixel_std", "crps", "energy_score"),
    *("coverage_50", "coverage_80", "coverage_95", "rmse", "predicted_rmse", "spread"),
}

SETTINGS = Settings(
    seed=0, resample=None, distance="stlpips", net="alex", lr_border="symmetric", tile=None, niqe=False, device="cpu"
)


def rgb_photograph() -> np.ndarray:
    return np.ascontiguousarray(chelsea()[:208, :208])


def test_scores_are_those_of_the_metrics(tmp_path: Path) -> None:
    gt = rgb_photograph()[:64, :64]
    lq, samples = bicubic_downscale(gt, 4), [noisy(gt, seed, sigma) for seed, sigma in enumerate((5, 20))]
    files = [tmp_path / name for name in ("gt.png", "lq.png", "a.png", "b.png")]
    for path, image in zip(files, (gt, lq, *samples), strict=True):
        write_image(path, image)
    values = score(files[2:], Pair(0, *files[:2]), SETTINGS)
    bgr_gt, *bgr = (np.ascontiguousarray(image[..., ::-1]) for image in (gt, *samples))
    psnr = [
        calculate_metric({"img": image, "img2": bgr_gt}, {"type": "calculate_psnr", "crop_border": 0}) for image in bgr
    ]
    on_y = {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True}
    psnr_y = [calculate_metric({"img": image, "img2": bgr_gt}, dict(on_y)) for image in bgr]
    assert values["psnr"] == pytest.approx(np.mean(psnr)) and values["psnr_best"] == pytest.approx(max(psnr))
    assert values["psnr_y"] == pytest.approx(np.mean(psnr_y)) and psnr_y[0] != pytest.approx(psnr[0], abs=0.1)
    assert values["distance"] == pytest.approx(np.mean([calculate_stlpips(image, bgr_gt) for image in bgr]), rel=1e-5)
    assert values["diversity"] == pytest.approx(calculate_diversity(bgr, bgr_gt, distance="stlpips"), rel=1e-5)
    alone = score(files[2:3], Pair(0, *files[:2]), SETTINGS)
    assert alone["psnr"] == pytest.approx(psnr[0])
    assert values.keys() - alone.keys() == OF_SAMPLES
    with pytest.raises(UserError, match=r"lq\.png is 16x16, its ground truth 64x64: they must be the same size"):
        score([files[1]], Pair(0, *files[:2]), SETTINGS)


@pytest.mark.slow
def test_scores_of_one_and_of_several_threads(benchmark_command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {}
    for workers in ("1", "2"):
        assert srflow_command([*benchmark_command, "-o", workers, "--workers", workers]) == 0
        lines = Path(workers, "scores.jsonl").read_text().splitlines()
        scores[workers] = [json.loads(line) for line in lines]
        for line in scores[workers]:
            assert line[-1].pop("score_seconds") > 0
    assert len(scores["1"]) == len(scores["2"]) == 2 * 2 * 4
    for one, other in zip(scores["1"], scores["2"], strict=True):
        assert one[:-1] == other[:-1]
        assert (one[-1].pop("spread", None) is None) == (other[-1].pop("spread", None) is None)  # sums by bin
        assert one[-1] == pytest.approx(other[-1], rel=1e-5, abs=1e-5)  # sums in other orders


def test_an_image_goes_through_the_distances_network_once(
    benchmark_command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = PerceptualDistance(stlpips_network("alex"))
    monkeypatch.setattr(perceptual, "perceptual_distance", lambda *_: network)
    passes: list[int] = []
    network.network.net.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    assert srflow_command(benchmark_command) == 0
    # Of two images, since the second data set is the first again: bicubic, tau 0, three samples, theirs; and the ground
    # truth once for all of them.
    assert passes == [1] * 2 * (1 + 1 + 3 + 1 + 1)


def test_threads_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    set_to: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    for workers in (1, 3, 16):
        with _cores_shared(workers):
            pass
    assert set_to == [8, 8, 2, 8, 1, 8]


def test_niqe_is_basicsrs(benchmark_command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        srflow_command([*benchmark_command, "--niqe"])
    assert "too small for NIQE" in capsys.readouterr().err
    image = rgb_photograph()
    for folder, picture in (("large", image), ("small", bicubic_downscale(image, 4))):
        Path(folder).mkdir()
        write_image(Path(folder) / "a.png", picture)
    command = ["benchmark", "-o", "niqe", "--set", "one", "large", "small", "--images", "GT", "large", "--niqe"]
    assert srflow_command([*command, "--distance", "stlpips"]) == 0
    niqe = json.loads(Path("niqe/summary.json").read_text())[0]["niqe"]
    bgr = np.ascontiguousarray(image[..., ::-1])
    assert niqe == pytest.approx(calculate_metric({"img": bgr}, {"type": "calculate_niqe", "crop_border": 4}))
