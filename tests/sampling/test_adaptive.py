"""Temperature by place: a map that rows and tiles do not change, and samples that it calms in its places alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from srflow_plugin.errors import UserError
from srflow_plugin.sampling.adaptive import FLAT, REACH, TEXTURED, factors, local_std, temperature_map
from srflow_plugin.sampling.draw import draw, draw_rows
from srflow_plugin.sampling.field import Field
from tests.helpers import Enlarger, image_pair, small_network


def photo(height: int, width: int, images: int = 1) -> Tensor:
    """Make images that are flat on the left and rough on the right, each with an edge at another row."""
    generator = torch.Generator().manual_seed(height)
    rough = torch.linspace(0, 0.1, width) * torch.randn(images, 3, height, width, generator=generator)
    edge = torch.arange(height).view(-1, 1) > height // 2 + torch.arange(images).view(-1, 1, 1, 1)
    return (0.3 + 0.2 * edge + rough).clamp(0, 1)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0, 1.25])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 2), (17, 40)])
def test_flat_places_get_the_share_and_texture_gets_all(share: float, height: int, width: int) -> None:
    flat, noise = torch.full((2, 3, height, width), 0.7), torch.rand(2, 3, 17, 40, generator=torch.Generator())
    torch.testing.assert_close(temperature_map(flat, share), torch.full((2, 1, height, width), share))
    torch.testing.assert_close(temperature_map(noise, share), torch.ones(2, 1, 17, 40))
    between = temperature_map(photo(height, width), share)
    assert between.min() >= min(share, 1) and between.max() <= max(share, 1)


def test_the_map_rises_with_the_deviation_around() -> None:
    lq = photo(40, 60)
    std, calm = local_std(255 * lq), temperature_map(lq, 0.2)
    expected = torch.stack([255 * lq[0, :, 10:15, column - 2 : column + 3] for column in range(2, 58)])
    variance = expected.flatten(2).var(2, correction=0).mean(1)
    torch.testing.assert_close(std[0, 0, 12, 2:58], variance.sqrt(), rtol=1e-3, atol=0.02)
    order = std.flatten().argsort()
    assert (calm.flatten()[order].diff() >= -1e-6).all()
    assert ((calm <= 0.2) == (std <= FLAT)).all() and ((calm >= 1) == (std >= TEXTURED)).float().mean() > 0.99
    assert calm[std > FLAT].min() > 0.2 and (calm <= 0.2).any() and (calm == 1).any()
    beside = 255 * lq[:, :, 40 // 2 - REACH : 40 // 2 + 1 + REACH]
    assert local_std(beside)[0, 0, REACH, 0] > TEXTURED  # an edge keeps its temperature, and what is next to it


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 30, 31, 99])
def test_a_map_of_rows_is_that_of_the_whole(rows: int) -> None:
    lq = photo(31, 20, images=2)
    own = torch.rand(2, 1, 31, 20, generator=torch.Generator())
    for adaptive, expected in ((0.4, temperature_map(lq, 0.4)), (own, own)):
        parts = list(factors(iter(lq.split(rows, 2)), adaptive))
        assert [part.shape[2] for part in parts] == [part.shape[2] for part in lq.split(rows, 2)]
        torch.testing.assert_close(torch.cat(parts, 2), expected)


def grain(images: Tensor, lq: Tensor) -> Tensor:
    """What an Enlarger's samples are beside bicubic: 0.05 times the latents."""
    difference: Tensor = images - draw(Enlarger(), lq, 0.0).images  # type: ignore[arg-type]
    return difference


def test_samples_are_calmer_by_the_map() -> None:
    lq = photo(9, 20, images=2)
    how: dict[str, Any] = {"seed": 3, "num_samples": 2}
    plain = draw(Enlarger(), lq, 0.8, **how).images  # type: ignore[arg-type]
    by_place = torch.rand(2, 1, 9, 20, generator=torch.Generator().manual_seed(0))
    for adaptive, calm in ((0.3, temperature_map(lq, 0.3)), (by_place, by_place), (by_place[:1], by_place[:1])):
        images = draw(Enlarger(), lq, 0.8, adaptive=adaptive, **how).images  # type: ignore[arg-type]
        each = calm.repeat_interleave(4, 2).repeat_interleave(4, 3)
        torch.testing.assert_close(grain(images, lq), each * grain(plain, lq), rtol=1e-4, atol=1e-5)
    for off in (None, 1.0, torch.ones(1, 1, 9, 20)):
        assert torch.equal(draw(Enlarger(), lq, 0.8, adaptive=off, **how).images, plain)  # type: ignore[arg-type]
    assert not torch.equal(images, plain)


class Odd(Enlarger):
    """One that takes even sizes alone, as networks with a coarse level do, and explodes where latents are large."""

    lq_multiple = 2

    def latent_shapes(self, h: int, w: int) -> list[tuple[int, int, int]]:
        return super().latent_shapes(h + h % 2, w + w % 2)

    def padded_lq(self, lq: Tensor) -> Tensor:
        return torch.nn.functional.pad(lq, (0, lq.shape[3] % 2, 0, lq.shape[2] % 2), mode="replicate")

    def decode(self, latents: Sequence[Tensor], lq: Tensor) -> Tensor:
        return super().decode([torch.where(latents[0].abs() > 3.9, 100, latents[0])], lq)


@pytest.mark.parametrize("rows", [2, 6, 60])
@pytest.mark.parametrize("tile", [8, 16, None])
def test_rows_and_tiles_are_the_whole_image(rows: int, tile: int | None) -> None:
    lq = photo(41, 15, images=2)
    for adaptive in (0.3, 0.5 + torch.rand(2, 1, 41, 15, generator=torch.Generator().manual_seed(0)) / 2):
        how: dict[str, Any] = {"seed": 0, "num_samples": 2, "resample": 0.5, "adaptive": adaptive}
        whole = draw(Odd(), lq, 1.0, **how)  # type: ignore[arg-type]
        bands = list(draw_rows(Odd(), iter(lq.split(rows, 2)), lq.shape, 1.0, tile=tile, **how))  # type: ignore[arg-type]
        images = torch.cat([band.images for band in bands], 2)
        assert whole.exploded and whole.images.max() < 2  # places were drawn again
        torch.testing.assert_close(images, whole.images.flatten(0, 1), rtol=1e-5, atol=1e-6)


def test_tiles_of_a_network_are_the_whole_image_whatever_else_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Field, "overlap", 64)  # farther than this network reaches
    network = small_network(4, num_block=1, feature_blocks=(0,), num_steps=1, scale_floor=0.3).double()
    _, lq = image_pair(4, 21, 9, batch=1, dtype=torch.float64)
    lq[..., :4] = 0.5
    how: dict[str, Any] = {"temperature": 0.8, "num_samples": 2, "seed": 0, "adaptive": 0.2}
    whole = network.sample(lq, **how)
    for other in ({"tile": 5}, {"tile": "auto"}, {"features": network.features(lq)}):
        torch.testing.assert_close(network.sample(lq, **how, **other), whole, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(network.sample(lq, **how, only=1), whole[1:], rtol=1e-9, atol=1e-9)
    own = temperature_map(lq, 0.2)
    torch.testing.assert_close(network.sample(lq, **{**how, "adaptive": own}), whole, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(network.sample(lq, **{**how, "adaptive": None}), whole)


@pytest.mark.parametrize(
    ("adaptive", "message"),
    [
        (-0.1, "adaptive must be from 0 to 1, or a map of factors, not -0.1"),
        (1.5, "adaptive must be from 0 to 1, or a map of factors, not 1.5"),
        (float("nan"), "adaptive must be from 0 to 1, or a map of factors, not nan"),
        (torch.ones(4, 5), r"adaptive must be \(1 or 2, 1, 4, 5\), not \(4, 5\)"),
        (torch.ones(1, 3, 4, 5), r"adaptive must be \(1 or 2, 1, 4, 5\), not \(1, 3, 4, 5\)"),
        (torch.ones(3, 1, 4, 5), r"adaptive must be \(1 or 2, 1, 4, 5\), not \(3, 1, 4, 5\)"),
        (torch.full((1, 1, 4, 5), -1.0), "adaptive must hold factors of the temperature: 0 or more, and finite"),
        (torch.full((1, 1, 4, 5), torch.nan), "adaptive must hold factors"),
        (torch.full((1, 1, 4, 5), torch.inf), "adaptive must hold factors"),
    ],
)
def test_what_is_no_map_is_refused(adaptive: float | Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw(Enlarger(), torch.zeros(2, 3, 4, 5), adaptive=adaptive)  # type: ignore[arg-type]
