"""Latents as data: in files, between two, normalised."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from srflow_plugin import SRFlowNet
from srflow_plugin.applications.latents import interpolate_latents, normalize_latents, read_latents, save_latents
from srflow_plugin.errors import UserError
from tests.helpers import image_pair, small_network


def random_latents(network: SRFlowNet, h: int, w: int, batch: int = 2, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, *shape, generator=generator) for shape in network.latent_shapes(h, w)]


def test_latents_between_keep_to_the_sphere() -> None:
    network = small_network()
    first, second = (random_latents(network, 24, 24, seed=seed) for seed in (0, 1))
    for weight in (0.0, 0.25, 0.5, 1.0):
        between = interpolate_latents(first, second, weight)
        std = torch.cat([latent.flatten() for latent in between]).std()
        assert std == pytest.approx(1, abs=0.02)  # on a straight line 0.71 half way
    for latents, weight in ((first, 0.0), (second, 1.0)):
        for latent, expected in zip(interpolate_latents(first, second, weight), latents, strict=True):
            torch.testing.assert_close(latent, expected)
    for latent, expected in zip(interpolate_latents(first, first, 0.3), first, strict=True):
        torch.testing.assert_close(latent, expected)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_normalised_latents_have_the_statistics_of_a_normal_everywhere(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(1, 2, 40, 40, generator=generator)
    spoilt = latent.clone()
    spoilt[:, 0, 10:30, 10:30] = 3 + 5 * latent[:, 0, 10:30, 10:30]
    (normalised,) = normalize_latents([spoilt], temperature, window=5)
    patch = normalised[0, 0, 14:26, 14:26]
    assert patch.mean().abs() < 0.05 and patch.std() == pytest.approx(temperature, rel=0.1)
    # where all is as it should be, little changes
    (kept,) = normalize_latents([latent], 1.0, window=31)
    assert (kept - latent).abs().mean() < 0.1
    (flat,) = normalize_latents([torch.ones(1, 1, 8, 8)])
    assert flat.abs().max() < 0.1


def test_latents_go_through_a_file(tmp_path: Path) -> None:
    network = small_network()
    gt, lq = image_pair(4, 6, 4)
    latents, _ = network.encode(gt, lq)
    save_latents(tmp_path / "a.safetensors", latents, lq)
    read, read_lq = read_latents(tmp_path / "a.safetensors")
    assert torch.equal(read_lq, lq)
    assert all(torch.equal(one, other) for one, other in zip(read, latents, strict=True))


def test_files_without_latents_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(UserError, match="does not exist; correct the path"):
        read_latents(path)
    path.write_text("text")
    with pytest.raises(UserError, match="is not a readable file of latents"):
        read_latents(path)
    save_latents(path, [], torch.zeros(1))
    with pytest.raises(UserError, match="holds no latents"):
        read_latents(path)
