"""Places that explode are found and drawn again, and nothing else is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from unittest.mock import Mock

import pytest
import torch

from srflow_plugin import SRFlowNet, load_network
from srflow_plugin.checkpoints.shipped import SHIPPED
from srflow_plugin.flow.windows import cut, enlarged
from srflow_plugin.images.resize import bicubic_upscale
from srflow_plugin.sampling.draw import draw
from srflow_plugin.sampling.explosions import REACH, boxes, exploded, resample_exploded
from srflow_plugin.sampling.field import Field
from srflow_plugin.sampling.latents import Latents
from tests.helpers import image_pair


def test_only_exploded_places_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scale, factor = 4, 0.5
    lq = torch.zeros(2, 3, 10, 120)
    generator = torch.Generator().manual_seed(0)
    latent = 0.5 * torch.rand(4, 3, 40, 480, generator=generator)
    latent[1, 0, 20, 40] = 7.0  # 7.5 -> 4 -> ... -> 1.375
    latent[1, 0, 20, 479] = 1.6  # 2.1 -> 1.3
    latent[3, 2, 0, 479] = 1e9
    widths = []

    network = Mock(scale=scale, lq_multiple=2)

    def decode(latents: Sequence[torch.Tensor], lq: torch.Tensor) -> torch.Tensor:
        assert latents[0].shape[2:] == (scale * lq.shape[2], scale * lq.shape[3])
        widths.append(lq.shape[3])
        return latents[0] + 0.5

    network.decode = decode
    latents = Latents([(3, 40, 480)], (10, 120), [0], 2, range(2))
    monkeypatch.setattr(latents, "window", lambda area: [cut(latent, enlarged(area, scale))])
    field = Field(network, iter([lq]), latents, 1.0, 120)
    field.move(0, 10)
    images = field.empty(10)
    field.decode((slice(0, 10), slice(0, 120)), images, 0)
    assert exploded(images).sum() == 3 and exploded(images)[1, 20, 40]
    widths.clear()
    calm = images.clone()
    assert not resample_exploded(field, calm, 0, factor).any()
    assert not exploded(calm).any()
    assert torch.equal(calm[[0, 2]], images[[0, 2]])
    assert calm[1, 0, 20, 40] == pytest.approx(0.5 + 7 * factor**3)
    assert calm[1, 0, 20, 479] == pytest.approx(0.5 + 1.6 * factor)
    reach = 4 * scale
    touched = (calm[1, :, :, :400] != images[1, :, :, :400]).any(0).nonzero()
    assert touched.min(0).values.tolist() == [20 - reach, 40 - reach]
    assert touched.max(0).values.tolist() == [39, 40 + reach + scale - 1]
    at_10, at_119 = 10 + 1 + 4 + 2 * 16 + 1, 1 + 4 + 2 * 16 + 1  # the place, REACH, twice OVERLAP, made even
    assert widths[:3] == [at_10, at_119, at_119]  # two places of the second image, one of the fourth
    assert widths[3:6] == [at_10, at_119, at_10] and set(widths[6:]) == {at_119}
    assert calm[3, 2, 0, 479] == 0.5  # 1e9 needs the last try, which is 0


@pytest.mark.slow
def test_decoding_places_again_is_as_good_as_decoding_the_whole_image(monkeypatch: pytest.MonkeyPatch) -> None:
    network = load_network(SHIPPED["photo"].path)
    lq = image_pair(4, 10, 40, batch=1)[0]  # 40x160 pixels, of which the sample explodes in one place
    widths: list[int] = []
    decode = network.decode

    def watched(latents: Sequence[torch.Tensor], lq: torch.Tensor) -> torch.Tensor:
        widths.append(lq.shape[3])
        return decode(latents, lq)

    monkeypatch.setattr(network, "decode", watched)
    sample = partial(network.sample, lq, temperature=0.9, seed=0, resample=0.5)
    in_places = sample()
    assert widths[0] == 160 and len(widths) > 1 and max(widths[1:]) < 80
    monkeypatch.setattr(Field, "overlap", 160)
    torch.testing.assert_close(in_places, sample(), rtol=0, atol=1e-5)
    assert widths[-1] == 160


@pytest.mark.slow
@pytest.mark.parametrize("tile", [None, 8])
def test_a_sample_drawn_again_is_repeatable_and_finite(tile: int | None) -> None:
    network = SRFlowNet(num_feat=6, num_grow_ch=4, num_block=2, feature_blocks=(0, 1), num_steps=2).eval()
    _, lq = image_pair(4, 9, 17)
    wild = network.sample(lq, 60.0, 2, seed=0, tile=tile)
    assert exploded(wild).any()
    calm = network.sample(lq, 60.0, 2, seed=0, tile=tile, resample=0.5)
    assert not exploded(calm).any()
    assert torch.equal(calm, network.sample(lq, 60.0, 2, seed=0, tile=tile, resample=0.5))
    mild = network.sample(lq, 0.01, 2, seed=0)
    assert torch.equal(mild, network.sample(lq, 0.01, 2, seed=0, resample=0.5))


@pytest.mark.parametrize("tile", [None, 8])
def test_what_explodes_at_any_temperature_is_bicubic_and_counted(tile: int | None) -> None:
    network = Mock(scale=4, lq_multiple=2, padded_lq=lambda lq: lq, latent_shapes=lambda h, w: [(3, 4 * h, 4 * w)])
    broken = torch.zeros(1, 3, 20, 40)
    broken[..., 9, 21] = 1.0

    def decode(latents: Sequence[torch.Tensor], lq: torch.Tensor) -> torch.Tensor:
        grey = latents[0] * 0 + 0.5
        return grey.masked_fill((lq > 0.9).repeat_interleave(4, 2).repeat_interleave(4, 3), torch.nan)

    network.decode = decode
    samples = draw(network, broken, 0.8, 2, seed=0, tile=tile, resample=0.5)
    side = 2 * REACH + 1
    assert samples.exploded == 2 and samples.replaced == 2 * side**2
    there = (..., slice(4 * 5, 4 * 14), slice(4 * 17, 4 * 26))
    torch.testing.assert_close(samples.images[0][there], bicubic_upscale(broken, 4)[there])
    assert (samples.images != 0.5).sum() <= 2 * 3 * (4 * side) ** 2


@pytest.mark.parametrize("tile", [None, 8])
def test_learned_latents_come_closer_to_0_where_they_explode(tile: int | None) -> None:
    network = Mock(scale=4, lq_multiple=2, padded_lq=lambda lq: lq, latent_shapes=lambda h, w: [(3, 4 * h, 4 * w)])
    network.features = lambda lq: [lq]
    network.learned_latents = lambda features: [features[0].repeat_interleave(4, 2).repeat_interleave(4, 3)]
    network.decode_features = lambda latents, features: latents[0]
    lq = torch.full((1, 3, 20, 40), 0.25)
    lq[..., 9, 21] = 4.0
    samples = draw(network, lq, "learned", tile=tile, resample=0.5)
    assert samples.exploded == 1 and samples.replaced == 0
    around = (..., slice(4 * (9 - REACH), 4 * (10 + REACH)), slice(4 * (21 - REACH), 4 * (22 + REACH)))
    assert samples.images[..., 36, 84].unique() == 1.0 and (samples.images[around] <= 1.0).all()
    samples.images[around] = 0.25
    assert samples.images.unique() == 0.25
    assert network.decode.call_count == 0


@pytest.mark.parametrize("density", [0.0, 0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_boxes_cover_a_mask_and_do_not_overlap(density: float, seed: int) -> None:
    mask = torch.rand(23, 31, generator=torch.Generator().manual_seed(seed)) < density
    covered = torch.zeros(mask.shape, dtype=torch.int)
    for rows, columns in boxes(mask):
        covered[rows, columns] += 1
        part = mask[rows, columns]
        assert part[[0, -1]].any(1).all() and part[:, [0, -1]].any(0).all()  # no wider than it has to be
        assert part.any(1).all() and part.any(0).all()  # nor to be cut further
    assert covered.max() <= 1
    assert (covered[mask] == 1).all()


def test_what_is_not_finite_has_exploded() -> None:
    images = torch.full((1, 3, 1, 5), 0.5)
    images[0, 0, 0, :4] = torch.tensor([torch.nan, torch.inf, -0.6, 1.4])
    assert exploded(images).tolist() == [[[True, True, True, False, False]]]
