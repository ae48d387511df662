"""Learned distances as maps and as numbers; every network is loaded once, nothing is calculated twice."""

from __future__ import annotations

import cv2
import lpips
import numpy as np
import pytest
import torch

from srflow_plugin.metrics import perceptual
from srflow_plugin.metrics.perceptual import Remembering, distance_map, image_distance, perceptual_distance
from tests.helpers import noisy


@pytest.mark.usefixtures("random_alexnet")
def test_the_map_is_the_packages(photograph: np.ndarray) -> None:
    other = noisy(photograph, 0)
    x, y = (lpips.im2tensor(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)) for image in (other, photograph))
    spatial = lpips.LPIPS(net="alex", spatial=True, verbose=False)(x, y)[0, 0]
    assert torch.allclose(distance_map(other, photograph), spatial, atol=1e-6)


@pytest.mark.usefixtures("random_alexnet")
def test_a_pair_is_compared_once(photograph: np.ndarray) -> None:
    network = perceptual_distance("lpips", "alex")
    passes = []
    network.network.net.network.register_forward_pre_hook(lambda *_: passes.append(1))
    samples = [noisy(photograph, seed) for seed in range(perceptual.COMPARISONS_KEPT)]
    distances = [image_distance(sample, photograph) for sample in samples]
    assert len(set(distances)) == len(samples)
    for sample in samples:
        distance_map(sample, photograph)
    assert [image_distance(sample, photograph) for sample in samples] == distances
    assert len(passes) == len(samples) + 1  # and each image goes through the network once
    image_distance(photograph, photograph)  # the oldest is forgotten
    image_distance(samples[0], photograph)
    assert len(passes) == len(samples) + 2
    assert perceptual_distance("lpips", "alex") is network


def test_features_of_the_last_two_images_are_remembered() -> None:
    calls = []

    class Network(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(x)
            return 2 * x

    network = Remembering(Network())
    a, b, c = (torch.full((2,), float(value)) for value in range(3))
    for x in (a, b, a.clone(), b, c, a, b):  # c takes the place of a, a that of b, b that of c
        assert torch.equal(network(x), 2 * x)
    assert [x[0].item() for x in calls] == [0, 1, 2, 0, 1]


def test_unknown_distances_are_named() -> None:
    with pytest.raises(ValueError, match="lpips or stlpips and net alex or vgg, not 'ssim' and 'alex'"):
        perceptual_distance("ssim", "alex")
