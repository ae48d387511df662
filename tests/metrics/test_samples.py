"""Metrics as option files name them, of one sample and of several, against independent implementations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from basicsr.metrics import calculate_metric
from basicsr.utils.registry import METRIC_REGISTRY
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from srflow_plugin.metrics import samples
from srflow_plugin.metrics.objects import image_tensor
from srflow_plugin.metrics.samples import Samples, is_lower_better, is_of_network, is_of_samples, measure
from srflow_plugin.training.resume import read_state
from tests.helpers import noisy, train


def test_psnr_and_ssim_agree_with_scikit_image(photograph: np.ndarray) -> None:
    other = noisy(photograph, 0)
    images = {"img": other, "img2": photograph}
    ours = calculate_metric(images, {"type": "calculate_psnr", "crop_border": 0})
    assert ours == pytest.approx(peak_signal_noise_ratio(photograph, other, data_range=255), abs=1e-9)
    ours = calculate_metric(images, {"type": "calculate_ssim", "crop_border": 0})
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    _, theirs = structural_similarity(photograph, other, data_range=255, channel_axis=2, full=True, **gaussian)
    assert ours == pytest.approx(theirs[5:-5, 5:-5].mean(), abs=1e-9)  # where the window is whole


def test_metrics_are_registered() -> None:
    names = {"calculate_lr_psnr", "calculate_lpips", "calculate_stlpips", "calculate_diversity", "calculate_pixel_std"}
    assert names <= set(dict(iter(METRIC_REGISTRY)))


def test_a_metric_over_samples(photograph: np.ndarray) -> None:
    images = [noisy(photograph, seed, sigma) for seed, sigma in enumerate((5, 10, 20))]
    psnr = [peak_signal_noise_ratio(photograph, sample, data_range=255) for sample in images]
    metric = {"type": "calculate_psnr", "crop_border": 0}
    assert measure(images, photograph, None, metric) == pytest.approx(np.mean(psnr))
    assert measure(images, photograph, None, {**metric, "over": "best"}) == pytest.approx(max(psnr))
    worst = {**metric, "over": "best", "better": "lower"}
    assert measure(images, photograph, None, worst) == pytest.approx(min(psnr))
    mean = np.mean(images, axis=0).round().astype(np.uint8)
    expected = peak_signal_noise_ratio(photograph, mean, data_range=255)
    assert measure(images, photograph, None, {**metric, "over": "mean_image"}) == pytest.approx(expected)


def test_the_best_of_distances_is_the_lowest(photograph: np.ndarray) -> None:
    images = [noisy(photograph, 0, sigma) for sigma in (5, 20)]
    section = {"type": "calculate_stlpips", "over": "best"}
    assert measure(images, photograph, None, section) == measure(images[:1], photograph, None, section)


SHARED: dict[str, dict[str, Any]] = {
    "PSNR": {"type": "calculate_psnr", "crop_border": 0},
    "PSNR, Y": {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True},
    "PSNR of tensors": {"type": "calculate_psnr_pt", "crop_border": 4, "test_y_channel": True},
    "SSIM": {"type": "calculate_ssim", "crop_border": 0},
    "SSIM, Y": {"type": "calculate_ssim", "crop_border": 4, "test_y_channel": True},
    "LR-PSNR": {"type": "calculate_lr_psnr", "scale": 4},
    "LPIPS": {"type": "calculate_lpips"},
    "LPIPS, border": {"type": "calculate_lpips", "crop_border": 8},
    "ST-LPIPS": {"type": "calculate_stlpips"},
    "NIQE": {"type": "calculate_niqe", "crop_border": 0},
}


@pytest.mark.usefixtures("random_alexnet")
def test_what_metrics_share_changes_none_of_them(photograph: np.ndarray) -> None:
    images = [noisy(photograph, seed, sigma) for seed, sigma in enumerate((5, 10, 20))]
    lq = photograph[::4, ::4]
    together = Samples(images, photograph, lq)
    mean = np.mean(images, axis=0).round().astype(np.uint8)
    for name, section in SHARED.items():

        def alone(image: np.ndarray, section: dict[str, Any] = section) -> float:
            """BasicSR's way: the metric by its name, of one image."""
            data: dict[str, Any] = {"img": image, "img2": photograph}
            if "lr_psnr" in section["type"]:
                data["lq"] = lq
            if section["type"].endswith("_pt"):
                data = {key: image_tensor(value) for key, value in data.items()}
            return float(calculate_metric(data, section))

        values = [alone(image) for image in images]
        best = min(values) if is_lower_better(section) else max(values)
        for over, expected in (("mean", np.mean(values)), ("best", best), ("mean_image", alone(mean))):
            assert together.measure({**section, "over": over}) == pytest.approx(expected, rel=1e-6), (name, over)


def test_images_are_converted_and_metrics_computed_once(
    photograph: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(name: str) -> None:
        function = vars(samples)[name]

        def call(*args: Any) -> Any:
            calls.append(name)
            return function(*args)

        monkeypatch.setattr(samples, name, call)

    counted("to_y_channel")
    counted("calculate_metric")
    together = Samples([noisy(photograph, seed) for seed in range(3)], photograph, None)
    for name in ("psnr", "ssim"):
        for over in ("mean", "best"):
            together.measure(
                {
                    "type": f"calculate_{name}",
                    "crop_border": 4,
                    "test_y_channel": True,
                    "over": over,
                    "better": "higher",
                }
            )
    assert calls.count("to_y_channel") == 3 + 1
    assert calls.count("calculate_metric") == 3  # PSNR; SSIM is computed of all together


def test_tensor_metrics_get_the_same_images(photograph: np.ndarray) -> None:
    """BasicSR's PSNR on tensors adds 1e-8 to the mean squared error: 3e-4 dB at 38 dB, more above. Its SSIM agrees."""
    images = [noisy(photograph, seed) for seed in range(2)]
    for metric, bound in (("ssim", 1e-8), ("psnr", 1e-4)):
        for on_y in (False, True):
            section = {"crop_border": 4, "test_y_channel": on_y}
            on_arrays = measure(images, photograph, None, {"type": f"calculate_{metric}", **section})
            on_tensors = measure(images, photograph, None, {"type": f"calculate_{metric}_pt", **section})
            assert on_tensors == pytest.approx(on_arrays, abs=bound if not (on_y and metric == "psnr") else 3e-4)


def test_what_a_metric_is_of_and_which_values_are_better() -> None:
    kinds = {
        "calculate_psnr": (False, False, False),
        "calculate_niqe": (False, False, True),
        "calculate_stlpips": (False, False, True),
        "calculate_diversity": (True, False, False),
        "calculate_nll": (False, True, True),
    }
    for name, kind in kinds.items():
        section = {"type": name}
        assert (is_of_samples(section), is_of_network(section), is_lower_better(section)) == kind, name
    assert is_lower_better({"type": "calculate_psnr", "better": "lower"})
    assert not is_lower_better({"type": "calculate_niqe", "better": "higher"})


@pytest.mark.slow
def test_an_option_file_names_them(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = [
        "lr_psnr={type: calculate_lr_psnr, scale: 4}",
        "best={type: calculate_psnr, crop_border: 4, over: best}",
        "std={type: calculate_pixel_std}",
        "diversity={type: calculate_diversity, distance: stlpips}",
        "stlpips={type: calculate_stlpips, better: lower}",
    ]
    assert train(*(f"val:metrics:{metric}" for metric in metrics), "logger:keep_best=std_tau0.8") == 0
    output = capsys.readouterr().err
    for name in ("lr_psnr_tau0", "best_tau0", "std_tau0.8", "diversity_tau0.8", "stlpips_tau0.8"):
        assert f"# {name}: " in output
    assert "std_tau0:" not in output  # of several samples alone
    state = read_state(Path("experiments/tiny/training_states/2.state"))
    assert state["best_metric_results"] == {}  # written before the validation
    assert Path("experiments/tiny/models/net_g_best.pth").exists()
    with pytest.raises(SystemExit):
        train("val:metrics:psnr:over=all")
    assert "val.metrics.psnr.over: 'all' is not mean or best or mean_image" in capsys.readouterr().err
