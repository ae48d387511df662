"""Latents as data: in files, between two, normalised."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from srflow_plugin import SRFlowNet
from srflow_plugin.applications.editing import interpolate, restore
from srflow_plugin.applications.latents import interpolate_latents, normalize_latents, read_latents, save_latents
from srflow_plugin.errors import UserError
from tests.helpers import image_pair, perturb, small_network


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


def test_latents_name_their_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = small_network()
    save_latents(tmp_path / "a", *image_latents(network), network, "net.pth")
    read_latents(tmp_path / "a", deepcopy(network).double().requires_grad_(False).train())
    assert not capsys.readouterr().err
    for other in (small_network(log_scale_bound=0.5), small_network(num_steps=1), perturb(small_network(), 1)):
        with pytest.raises(UserError, match=r"a was encoded by net\.pth, whose weights are not these"):
            read_latents(tmp_path / "a", other)


def image_latents(network: SRFlowNet) -> tuple[list[torch.Tensor], torch.Tensor]:
    gt, lq = image_pair(4, 6, 4)
    with torch.no_grad():
        return [latent.contiguous() for latent in network.encode(gt, lq)[0]], lq


def test_latents_that_are_not_finite_are_neither_written_nor_read(tmp_path: Path) -> None:
    latents, lq = image_latents(small_network())
    latents[1][0, 0, 0, 0] = math.nan
    with pytest.raises(UserError, match="the latents are not finite"):
        save_latents(tmp_path / "a", latents, lq)
    assert not (tmp_path / "a").exists()
    save_file({**{f"latent_{index}": latent for index, latent in enumerate(latents)}, "lq": lq}, tmp_path / "a")
    with pytest.raises(UserError, match="a is damaged: latent_1 is not finite"):
        read_latents(tmp_path / "a")


@pytest.mark.parametrize(
    "change",
    [
        {"latent_0": torch.zeros(2, 6, 12, 8, dtype=torch.int32)},
        {"latent_0": torch.zeros(6, 12, 8)},
        {"latent_0": torch.zeros(3, 6, 12, 8)},
        {"lq": torch.zeros(1, 3, 6, 4)},
    ],
)
def test_tensors_that_are_no_latents_are_refused(change: dict[str, torch.Tensor], tmp_path: Path) -> None:
    latents, lq = image_latents(small_network())
    right = {**{f"latent_{index}": latent for index, latent in enumerate(latents)}, "lq": lq}
    save_file({**right, **change}, tmp_path / "a")
    with pytest.raises(UserError, match="a holds no latents: shapes or types differ"):
        read_latents(tmp_path / "a")
    save_file({name: value.half() for name, value in right.items()}, tmp_path / "a")
    assert {value.dtype for value in read_latents(tmp_path / "a")[0]} == {torch.float32}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(number: float) -> None:
    latents, lq = image_latents(small_network())
    gt = image_pair(4, 6, 4)[0]
    for use in (
        lambda: interpolate_latents(latents, latents, number),
        lambda: normalize_latents(latents, number),
        lambda: normalize_latents(latents, window=number),  # type: ignore[arg-type]
        lambda: restore(small_network(), gt, lq, number),
        lambda: interpolate(small_network(), gt, gt, lq, number),  # type: ignore[arg-type]
    ):
        with pytest.raises(UserError, match=f"must be .*{number}"):
            use()
