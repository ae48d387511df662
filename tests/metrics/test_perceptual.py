"""Learned distances as maps and as numbers; every network is loaded once, nothing is calculated twice."""

from __future__ import annotations

from typing import Any

import cv2
import lpips
import numpy as np
import pytest
import torch
from stlpips_pytorch.models_lpf import Downsample
from torch import nn

from srflow_plugin.metrics import perceptual
from srflow_plugin.metrics.blurred import BlurredConvolution, merge_blurs
from srflow_plugin.metrics.perceptual import Comparison, PerceptualDistance, compare, perceptual_distance
from srflow_plugin.metrics.published import stlpips_network
from srflow_plugin.metrics.samples import Samples
from tests.helpers import noisy


def by_the_package(network: Any, images: list[np.ndarray], reference: np.ndarray) -> Comparison:
    """Compare one pair after the other, by what the package itself has for pairs."""
    x, *others = (lpips.im2tensor(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)) for image in (reference, *images))
    with torch.no_grad():
        distances = [network(other, x).item() for other in others]
        network.spatial = True
        maps = torch.cat([network(other, x)[0] for other in others]).double()
    return Comparison(distances, maps.mean((1, 2)).tolist(), maps.amin(0).mean().item())


def assert_same(ours: Comparison, theirs: Comparison) -> None:
    for name, value in theirs._asdict().items():
        assert getattr(ours, name) == pytest.approx(value, rel=1e-6, abs=1e-7), name


@pytest.mark.usefixtures("random_alexnet")
def test_lpips_of_several_is_the_packages_of_each(photograph: np.ndarray) -> None:
    samples = [noisy(photograph, seed, sigma) for seed, sigma in enumerate((3, 10, 30))]
    theirs = by_the_package(lpips.LPIPS(net="alex", verbose=False), samples, photograph)
    assert_same(compare(samples, photograph, "lpips", "alex"), theirs)


@pytest.mark.parametrize("size", [(64, 65), (65, 64), (97, 111), (192, 200)])
def test_stlpips_of_several_is_the_packages_of_each(photograph: np.ndarray, size: tuple[int, int]) -> None:
    height, width = size
    reference = np.ascontiguousarray(photograph[:height, :width])
    samples = [noisy(reference, seed, sigma) for seed, sigma in enumerate((3, 10, 30))]
    theirs = by_the_package(stlpips_network("alex").eval(), samples, reference)
    assert_same(compare(samples, reference, "stlpips", "alex"), theirs)
    assert compare([reference], reference, "stlpips", "alex") == ([0], [0], 0)


def test_batches_are_what_single_images_are(photograph: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way that a GPU takes, here on the CPU."""
    samples = [noisy(photograph, seed) for seed in range(5)]
    network = PerceptualDistance(stlpips_network("alex"))
    one_by_one = network(samples, photograph)
    batches = []
    monkeypatch.setattr(network, "at_once", lambda size: 2)
    network.network.net.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    network.compared.forget()
    assert_same(network(samples, photograph), one_by_one)
    assert batches == [2, 2, 1]


@pytest.mark.parametrize("size", [(13, 14), (14, 13), (16, 40), (37, 30)])
@pytest.mark.parametrize(("kernel", "padding"), [(11, 2), (3, 1), (5, 0)])
def test_a_blurred_convolution_is_both_layers(size: tuple[int, int], kernel: int, padding: int) -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, kernel, padding=padding), Downsample(channels=4, pad_more=True), nn.ReLU())
    layers.double()
    x = torch.randn(2, 3, *size, dtype=torch.double)
    expected = layers(x)
    network = nn.Module()
    network.slice1 = layers
    merge_blurs(network)
    assert isinstance(layers[0], BlurredConvolution)
    assert torch.allclose(layers(x), expected, atol=1e-12)


@pytest.mark.parametrize(
    "following",
    [Downsample(channels=4), Downsample(channels=4, filt_size=5, pad_more=True), nn.ReLU()],
    ids=["another border", "another blur", "none"],
)
def test_other_layers_are_left_alone(following: nn.Module) -> None:
    network = nn.Module()
    network.slice1 = nn.Sequential(nn.Conv2d(3, 4, 5), following)
    merge_blurs(network)
    assert [type(layer) for layer in network.slice1] == [nn.Conv2d, type(following)]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images that went through the network of ST-LPIPS, one number for each pass."""
    network = PerceptualDistance(stlpips_network("alex"))
    monkeypatch.setattr(perceptual, "perceptual_distance", lambda *_: network)
    counted: list[int] = []
    network.network.net.register_forward_pre_hook(lambda _, args: counted.append(len(args[0])))
    return counted


@pytest.mark.parametrize("number", [3, 20])
def test_an_image_goes_through_the_network_once(passes: list[int], photograph: np.ndarray, number: int) -> None:
    gt = np.ascontiguousarray(photograph[:64, :64])
    sections = [
        {"type": "calculate_stlpips"},
        {"type": "calculate_stlpips", "over": "best"},
        {"type": "calculate_diversity", "distance": "stlpips"},
    ]
    for first in (0, 100):  # two temperatures
        samples = Samples([noisy(gt, first + seed) for seed in range(number)], gt, None)
        values = [samples.measure(section) for section in sections]
        assert values[1] < values[0]
    assert sum(passes) == 2 * number + 1  # the ground truth once for both


def test_images_of_other_sizes_are_refused(photograph: np.ndarray) -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        compare([photograph[:-1]], photograph, "stlpips", "alex")


def test_unknown_distances_are_named() -> None:
    with pytest.raises(ValueError, match="lpips or stlpips and net alex or vgg, not 'ssim' and 'alex'"):
        perceptual_distance("ssim", "alex")
    assert perceptual_distance("stlpips", "alex") is perceptual_distance("stlpips", "alex")


def test_features_are_of_the_network_that_asks(photograph: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python gives the number of an object that is gone to another."""
    monkeypatch.setattr(perceptual, "id", lambda one: 0, raising=False)
    image, gt = np.ascontiguousarray(photograph[:64, :64]), np.ascontiguousarray(photograph[-64:, -64:])
    network: Any = stlpips_network("alex")
    for weight in network.net.parameters():
        weight.data.mul_(0.5)
    other = PerceptualDistance(network)
    perceptual.forget_references()
    expected = other([image], gt).distances
    perceptual.forget_references()
    PerceptualDistance(stlpips_network("alex"))([image], gt)
    other.compared.forget()
    assert other([image], gt).distances == expected
