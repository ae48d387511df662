"""Samples: repeatable, shared work, drawn together or alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from srflow_plugin.errors import UserError
from srflow_plugin.flow import Context
from srflow_plugin.sampling.draw import draw, draw_rows
from srflow_plugin.sampling.explosions import exploded
from tests.helpers import image_pair, plain_decode, small_network


def test_temperature_zero_is_deterministic_and_others_are_not() -> None:
    network = small_network()
    _, lq = image_pair(4, 5, 4)
    zero = network.sample(lq, temperature=0, num_samples=2)
    assert zero.shape == (2, 2, 3, 20, 16)
    assert torch.equal(zero[0], zero[1])
    latents = [torch.zeros(2, *shape) for shape in network.latent_shapes(5, 4)]
    torch.testing.assert_close(zero[0], network.decode(latents, lq))
    one = network.sample(lq, temperature=1, num_samples=2)
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one, network.sample(lq, temperature=1, num_samples=2))


@pytest.mark.parametrize("seed", [0, 1])
def test_same_seed_same_samples(seed: int) -> None:
    network = small_network()
    _, lq = image_pair(4, 4, 4)
    torch.manual_seed(1)
    first = network.sample(lq, 0.8, num_samples=3, seed=seed)
    torch.manual_seed(2)
    assert torch.equal(first, network.sample(lq, 0.8, num_samples=3, seed=seed))
    assert torch.equal(first[:2], network.sample(lq, 0.8, num_samples=2, seed=seed))
    torch.testing.assert_close(first[2:], network.sample(lq, 0.8, seed=seed, only=2), rtol=1e-4, atol=1e-5)
    assert not torch.equal(first, network.sample(lq, 0.8, num_samples=3, seed=seed + 1))


def test_seeded_sampling_leaves_the_global_generator_alone() -> None:
    network = small_network()
    _, lq = image_pair(4, 4, 4)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    network.sample(lq, 0.8, seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_samples_drawn_together_are_those_drawn_alone() -> None:
    network = small_network().double()
    _, lq = image_pair(4, 5, 4, dtype=torch.float64)
    together = network.sample(lq, 0.8, num_samples=5, seed=0)
    generator = torch.Generator().manual_seed(0)
    for sample in together:
        latents = [torch.randn(1, *shape, generator=generator) for shape in network.latent_shapes(5, 4)]
        latents = [0.8 * latent.double().expand(2, -1, -1, -1) for latent in latents]
        torch.testing.assert_close(sample, plain_decode(network, latents, lq), rtol=1e-9, atol=1e-9)


def test_a_seed_is_a_picture_in_any_batch_number_precision_and_on_any_device() -> None:
    network = small_network(scale_floor=0.3)
    _, lq = image_pair(4, 5, 4, batch=3)
    together = network.sample(lq, 0.8, num_samples=4, seed=7)
    for number in range(3):
        alone = network.sample(lq[number : number + 1], 0.8, num_samples=2, seed=7)
        torch.testing.assert_close(together[:2, number], alone[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        network.double().sample(lq.double(), 0.8, num_samples=4, seed=7).float(), together, rtol=1e-3, atol=1e-4
    )
    without = network.sample(lq[:1].double().repeat(2, 1, 1, 1), 0.8, num_samples=2)
    assert len({float(image.sum()) for image in without.flatten(0, 1)}) == 4


def test_samples_share_the_encoders_features(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_network()
    _, lq = image_pair(4, 5, 7)
    features = network.features(lq)
    for name in ("forward", "contexts"):
        monkeypatch.setattr(network.encoder, name, None)  # is not asked again
    shared = [network.sample(lq, temperature, 2, seed=0, features=features) for temperature in (0, 0.8)]
    for temperature, images in zip((0, 0.8), shared, strict=True):
        assert torch.equal(images, small_network().sample(lq, temperature, 2, seed=0))


class Echo:
    """Network whose image is its latents, moved to grey; it remembers what it was asked to decode."""

    scale = 4
    lq_multiple = 2

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def latent_shapes(self, h: int, w: int) -> list[tuple[int, int, int]]:
        height, width = (self.scale * (size + size % 2) for size in (h, w))
        return [(3, height, width)]

    def padded_lq(self, lq: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(lq, (0, lq.shape[3] % 2, 0, lq.shape[2] % 2))

    def decode(self, latents: Sequence[torch.Tensor], lq: torch.Tensor) -> torch.Tensor:
        self.asked.append(tuple(lq.shape[2:]))
        return latents[0] + 0.5

    def decode_features(self, latents: Sequence[torch.Tensor], features: Sequence[Context]) -> torch.Tensor:
        self.asked.append(tuple(features[0].own.shape[2:]))
        return latents[0] + 0.5


RARE = 0.22  # temperature at which an echo explodes in places, if in any


def test_the_whole_is_decoded_once_and_counted_once_and_places_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lq = torch.zeros(1, 3, 10, 240)
    wild = draw(Echo(), lq, RARE, 4, seed=0)
    broken = exploded(wild.images).flatten(2).any(2).sum()
    assert 0 < wild.exploded < 4 and wild.exploded == broken

    count = Mock(wraps=exploded)
    monkeypatch.setattr("srflow_plugin.sampling.tiling.exploded", count)
    network = Echo()
    calm = draw(network, lq, RARE, 4, seed=0, resample=0.5)
    assert [len(call.args[0]) for call in count.call_args_list] == [4]
    assert network.asked[0] == (10, 240) and len(network.asked) > 1
    assert all(width < 240 for _, width in network.asked[1:])
    assert calm.exploded == wild.exploded and not exploded(calm.images).any()

    network = Echo()
    calm = draw(network, lq, RARE, 4, seed=0, resample=0.5, features=[Context(lq)])
    assert network.asked[0] == (10, 240) and all(width < 240 for _, width in network.asked[1:])
    assert calm.exploded == wild.exploded


def test_what_is_cropped_away_is_not_counted() -> None:
    class Outside(Echo):
        def decode(self, latents: Sequence[torch.Tensor], lq: torch.Tensor) -> torch.Tensor:
            image = super().decode(latents, lq)
            image[..., 4 * 5 :] = torch.inf
            return image

    samples = draw(Outside(), torch.zeros(1, 3, 4, 5), 0.0, 2)
    assert samples.images.shape == (2, 1, 3, 16, 20) and samples.exploded == 0
    assert draw(Outside(), torch.zeros(1, 3, 4, 6), 0.0, 2).exploded == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -1}, "temperature must be 0 or more"),
        ({"temperature": float("nan")}, "temperature must be 0 or more"),
        ({"temperature": "learnt"}, 'temperature must be 0 or more and finite, or "learned", not learnt'),
        ({"temperature": "learned"}, "no learned prior, .* options/train_SRFlow_x4_prior.yml"),
        ({"num_samples": 0}, "num_samples must be 1 or more"),
        ({"resample": 1.0}, "resample must be from 0 to below 1"),
        ({"tile": 0}, "tile must be 1 or more"),
        ({"temperature": float("inf")}, "temperature must be 0 or more"),
        ({"seed": 2**64}, "seed must be a whole number of 64 bits"),
        ({"only": -1}, "only must be the number of a sample"),
    ],
)
def test_impossible_draws_are_named(arguments: dict[str, Any], message: str) -> None:
    network = Echo()
    with pytest.raises(UserError, match=message):
        draw(network, torch.zeros(1, 3, 4, 4), **arguments)
    assert not network.asked


@pytest.mark.parametrize("rows", [2, 6, 34, 60])
@pytest.mark.parametrize("tile", [8, 16, None])
def test_rows_that_come_and_go_are_the_whole_image(rows: int, tile: int | None) -> None:
    lq = torch.rand(2, 3, 61, 9, generator=torch.Generator().manual_seed(1))
    for temperature in (RARE, 1.0):
        how = {"seed": 0, "resample": 0.5}
        whole = draw(Echo(), lq, temperature, 2, **how)  # type: ignore[arg-type]
        parts = iter(lq.split(rows, 2))
        bands = list(draw_rows(Echo(), parts, lq.shape, temperature, 2, tile=tile, **how))  # type: ignore[arg-type]
        images = torch.cat([band.images for band in bands], 2)
        assert len(bands) == (1 if tile is None else -(-62 // tile))
        assert torch.stack([band.exploded for band in bands]).any(0).sum() == whole.exploded
        assert images.shape[2] == 4 * 61 and not exploded(images).any()
        if temperature == RARE:  # places are far from each other: which is seen first does not matter
            assert torch.equal(images, whole.images.flatten(0, 1))


def test_threads_that_share_a_network_draw_what_each_draws_alone() -> None:
    network = small_network()
    _, lq = image_pair(4, 6, 6)
    alone = [network.sample(lq, 0.8, 2, seed=seed) for seed in range(4)]
    together: dict[int, list[torch.Tensor]] = {}

    def work(seed: int) -> None:
        together[seed] = [network.sample(lq, 0.8, 2, seed=seed) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, samples in enumerate(alone):
        assert [torch.equal(samples, again) for again in together[seed]] == [True] * 3
