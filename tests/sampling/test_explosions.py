"""Places that explode are found and drawn again, and nothing else is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
import torch

from srflow_plugin import SRFlowNet, load_network
from srflow_plugin.checkpoints.shipped import SHIPPED
from srflow_plugin.sampling.explosions import boxes, exploded, resample_exploded
from tests.helpers import image_pair


def test_only_exploded_places_are_drawn_again() -> None:
    scale, factor = 4, 0.5
    lq = torch.zeros(2, 3, 10, 120)
    generator = torch.Generator().manual_seed(0)
    latent = 0.5 * torch.rand(4, 3, 40, 480, generator=generator)
    latent[1, 0, 20, 40] = 7.0  # 7.5 -> 4 -> ... -> 1.375
    latent[1, 0, 20, 479] = 1.6  # 2.1 -> 1.3
    latent[3, 2, 0, 479] = 1e9
    widths = []

    def decode(latents: Sequence[torch.Tensor], lq: torch.Tensor) -> torch.Tensor:
        assert latents[0].shape[2:] == (scale * lq.shape[2], scale * lq.shape[3])
        widths.append(lq.shape[3])
        return latents[0] + 0.5

    images = decode([latent], lq[[0, 1, 0, 1]])
    assert exploded(images).sum() == 3 and exploded(images)[1, 20, 40]
    widths.clear()
    calm = resample_exploded(decode, [latent], images, lq, scale, 2, factor)
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
    network = load_network(SHIPPED[4])
    lq = image_pair(4, 10, 40, batch=1)[0]  # 40x160 pixels, of which the sample explodes in one place
    widths: list[int] = []
    decode = network.decode

    def watched(latents: Sequence[torch.Tensor], lq: torch.Tensor) -> torch.Tensor:
        widths.append(lq.shape[3])
        return decode(latents, lq)

    monkeypatch.setattr(network, "decode", watched)
    sample = partial(network.sample, lq, temperature=1.0, seed=0, resample=0.5)
    in_places = sample()
    assert widths[0] == 160 and len(widths) > 1 and max(widths[1:]) < 80
    monkeypatch.setattr("srflow_plugin.sampling.explosions.OVERLAP", 160)
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
