"""Metrics against independent implementations and constructed cases."""

from __future__ import annotations

from typing import Any

import cv2
import lpips
import numpy as np
import pytest
import torch
import torchvision
from basicsr.metrics import calculate_metric
from basicsr.utils.registry import METRIC_REGISTRY
from skimage.data import chelsea
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from srflow_plugin import bicubic_downscale, calculate_diversity, calculate_lpips, calculate_lr_psnr, calculate_stlpips
from srflow_plugin.cli.main import basicsr_command
from srflow_plugin.errors import UserError
from srflow_plugin.metrics import diversity, perceptual
from srflow_plugin.metrics.samples import measure


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """A photograph (H, W, 3), uint8 BGR, a multiple of 8."""
    return np.ascontiguousarray(chelsea()[:192, 40:240, ::-1])


def noisy(image: np.ndarray, seed: int, sigma: float = 10) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return (image + noise).round().clip(0, 255).astype(np.uint8)


@pytest.fixture
def random_alexnet(monkeypatch: pytest.MonkeyPatch) -> Any:
    """AlexNet without its downloaded weights, the same wherever it is built."""

    def build(*args: Any, **kwargs: Any) -> torch.nn.Module:
        torch.manual_seed(0)
        return alexnet(weights=None)

    alexnet = torchvision.models.alexnet
    monkeypatch.setattr(torchvision.models, "alexnet", build)
    perceptual.perceptual_distance.cache_clear()
    yield
    perceptual.perceptual_distance.cache_clear()


def test_psnr_and_ssim_agree_with_scikit_image(photograph: np.ndarray) -> None:
    other = noisy(photograph, 0)
    images = {"img": other, "img2": photograph}
    ours = calculate_metric(images, {"type": "calculate_psnr", "crop_border": 0})
    assert ours == pytest.approx(peak_signal_noise_ratio(photograph, other, data_range=255), abs=1e-9)
    ours = calculate_metric(images, {"type": "calculate_ssim", "crop_border": 0})
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    _, theirs = structural_similarity(photograph, other, data_range=255, channel_axis=2, full=True, **gaussian)
    assert ours == pytest.approx(theirs[5:-5, 5:-5].mean(), abs=1e-9)  # where the window is whole


def test_lr_psnr_is_that_of_the_downscaled_images(photograph: np.ndarray) -> None:
    other = noisy(photograph, 0)
    small, small_other = (bicubic_downscale(image, 4) for image in (photograph, other))
    expected = peak_signal_noise_ratio(small, small_other, data_range=255)
    assert calculate_lr_psnr(other, photograph) == pytest.approx(expected, abs=1e-9)
    assert calculate_lr_psnr(other, lq=small) == pytest.approx(expected, abs=1e-9)
    assert calculate_lr_psnr(photograph, photograph) == float("inf")
    cropped = peak_signal_noise_ratio(small[2:-2, 2:-2], small_other[2:-2, 2:-2], data_range=255)
    assert calculate_lr_psnr(other, photograph, crop_border=2) == pytest.approx(cropped, abs=1e-9)
    replicated = (bicubic_downscale(image, 8, "replicate") for image in (photograph, other))
    expected = peak_signal_noise_ratio(*replicated, data_range=255)
    assert calculate_lr_psnr(other, photograph, scale=8, lr_border="replicate") == pytest.approx(expected, abs=1e-9)
    with pytest.raises(ValueError, match="needs the LR image"):
        calculate_lr_psnr(photograph)


@pytest.mark.usefixtures("random_alexnet")
def test_lpips_is_the_packages(photograph: np.ndarray) -> None:
    other = noisy(photograph, 0)
    network = lpips.LPIPS(net="alex", verbose=False)
    x, y = (lpips.im2tensor(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)) for image in (other, photograph))
    expected = network(x, y).item()
    assert calculate_lpips(other, photograph) == pytest.approx(expected, rel=1e-5)
    assert calculate_lpips(photograph, photograph) == 0
    spatial = lpips.LPIPS(net="alex", spatial=True, verbose=False)(x, y)[0, 0]
    assert torch.allclose(perceptual.distance_map(other, photograph), spatial, atol=1e-6)
    border = np.full_like(photograph, 0)
    border[8:-8, 8:-8] = photograph[8:-8, 8:-8]
    assert calculate_lpips(border, photograph, crop_border=8) == 0 < calculate_lpips(border, photograph)


def test_lpips_without_its_weights_says_what_to_do(monkeypatch: pytest.MonkeyPatch, photograph: np.ndarray) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torchvision.models, "alexnet", unreachable)
    perceptual.perceptual_distance.cache_clear()
    with pytest.raises(UserError, match=r"weights of alex cannot be fetched \(no network\).*calculate_stlpips"):
        calculate_lpips(photograph, photograph)


def test_stlpips_needs_no_download_and_orders_as_eyes_do(photograph: np.ndarray) -> None:
    height, width = photograph.shape[:2]
    blurred = cv2.resize(cv2.resize(photograph, (width // 8, height // 8)), (width, height))
    distances = [calculate_stlpips(noisy(photograph, 0, sigma), photograph) for sigma in (0, 3, 30)]
    assert 0 == distances[0] < distances[1] < distances[2]
    assert calculate_stlpips(blurred, photograph) > distances[1]
    assert calculate_stlpips(blurred, photograph, net="vgg") > 0


def test_diversity_is_the_formula_on_a_constructed_case(monkeypatch: pytest.MonkeyPatch) -> None:
    # two pixels, three samples: distances (1, 4), (3, 1), (2, 2). G = min(2.5, 2, 2) = 2, L = (1 + 1) / 2 = 1
    maps = iter([torch.tensor([[1.0, 4.0]]), torch.tensor([[3.0, 1.0]]), torch.tensor([[2.0, 2.0]])])
    monkeypatch.setattr(diversity, "distance_map", lambda *args: next(maps))
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
    assert measure(samples, None, None, {"type": "calculate_pixel_std"}) == pytest.approx(np.std([10, 20, 30]))


def test_a_metric_over_samples(photograph: np.ndarray) -> None:
    samples = [noisy(photograph, seed, sigma) for seed, sigma in enumerate((5, 10, 20))]
    psnr = [peak_signal_noise_ratio(photograph, sample, data_range=255) for sample in samples]
    metric = {"type": "calculate_psnr", "crop_border": 0}
    assert measure(samples, photograph, None, metric) == pytest.approx(np.mean(psnr))
    assert measure(samples, photograph, None, {**metric, "over": "best"}) == pytest.approx(max(psnr))
    worst = {**metric, "over": "best", "better": "lower"}
    assert measure(samples, photograph, None, worst) == pytest.approx(min(psnr))
    mean = np.mean(samples, axis=0).round().astype(np.uint8)
    expected = peak_signal_noise_ratio(photograph, mean, data_range=255)
    assert measure(samples, photograph, None, {**metric, "over": "mean_image"}) == pytest.approx(expected)


def test_metrics_are_registered() -> None:
    names = {"calculate_lr_psnr", "calculate_lpips", "calculate_stlpips", "calculate_diversity", "calculate_pixel_std"}
    assert names <= set(dict(iter(METRIC_REGISTRY)))


def test_an_option_file_names_them(workplace: Any, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = [
        "lr_psnr={type: calculate_lr_psnr, scale: 4}",
        "best={type: calculate_psnr, crop_border: 4, over: best}",
        "std={type: calculate_pixel_std}",
        "diversity={type: calculate_diversity, distance: stlpips}",
        "stlpips={type: calculate_stlpips, better: lower}",
    ]
    entries = [f"val:metrics:{metric}" for metric in metrics]
    assert basicsr_command(["train", "-opt", "tiny.yml", "--force_yml", *entries, "logger:keep_best=std_tau0.8"]) == 0
    best = torch.load("experiments/tiny/training_states/2.state")["best_metric_results"]
    assert best == {}  # written before the validation
    with pytest.raises(SystemExit):
        basicsr_command(["train", "-opt", "tiny.yml", "--force_yml", "val:metrics:psnr:over=all"])
    assert "val.metrics.psnr.over: 'all' is not mean or best or mean_image" in capsys.readouterr().err


def test_tensor_metrics_get_the_same_images(photograph: np.ndarray) -> None:
    """BasicSR's PSNR on tensors adds 1e-8 to the mean squared error: 3e-4 dB at 38 dB, more above. Its SSIM agrees."""
    samples = [noisy(photograph, seed) for seed in range(2)]
    for metric, bound in (("ssim", 1e-8), ("psnr", 1e-4)):
        for on_y in (False, True):
            section = {"crop_border": 4, "test_y_channel": on_y}
            on_arrays = measure(samples, photograph, None, {"type": f"calculate_{metric}", **section})
            on_tensors = measure(samples, photograph, None, {"type": f"calculate_{metric}_pt", **section})
            assert on_tensors == pytest.approx(on_arrays, abs=bound if not (on_y and metric == "psnr") else 3e-4)


def test_the_best_of_distances_is_the_lowest(photograph: np.ndarray) -> None:
    samples = [noisy(photograph, 0, sigma) for sigma in (5, 20)]
    section = {"type": "calculate_stlpips", "over": "best"}
    assert measure(samples, photograph, None, section) == measure(samples[:1], photograph, None, section)


def test_other_models_have_no_likelihood(photograph: np.ndarray) -> None:
    with pytest.raises(ValueError, match="only model_type SRFlowModel has a likelihood"):
        measure([photograph], photograph, None, {"type": "calculate_nll"})
    assert measure([photograph], photograph, None, {"type": "calculate_nll"}, nll=1.5) == 1.5
