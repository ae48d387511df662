"""The layers that do not look at the LR image."""

from __future__ import annotations

import pytest
import torch

from srflow_plugin.flow import ActNorm, Chain, ChannelAffine, InvertibleConv1x1, Squeeze, initialize_from_data
from tests.helpers import image_pair, small_network

CHANNELS = 5


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, CHANNELS, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_squeeze_has_the_documented_channel_order() -> None:
    x = torch.arange(8.0).view(1, 2, 2, 2)
    y, _ = Squeeze()(x)
    for c in range(2):
        for dy in range(2):
            for dx in range(2):
                assert y[0, c * 4 + dy * 2 + dx] == x[0, c, dy, dx]


def test_initialisation_normalises_what_every_layer_gives(x: torch.Tensor) -> None:
    chain = Chain([ActNorm(CHANNELS), InvertibleConv1x1(CHANNELS), ActNorm(CHANNELS)]).double()
    x = 3 * x + 1
    initialize_from_data(lambda: chain(x), chain)
    for length in (1, 3):
        y = x
        for layer in list(chain.bijections)[:length]:
            y, _ = layer(y)
        torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(CHANNELS, dtype=y.dtype), atol=1e-5, rtol=0)
        torch.testing.assert_close(
            y.var((0, 2, 3), correction=0), torch.ones(CHANNELS, dtype=y.dtype), atol=1e-5, rtol=0
        )


def test_initialisation_happens_once_and_is_remembered(x: torch.Tensor) -> None:
    layer = ActNorm(CHANNELS).double()
    assert not layer.initialized
    initialize_from_data(lambda: layer(x), layer)
    before = layer.bias.clone()
    layer(10 * x)  # a later batch does not move it
    torch.testing.assert_close(layer.bias, before)
    fresh = ActNorm(CHANNELS).double()
    fresh.load_state_dict(layer.state_dict())
    assert fresh.initialized
    assert isinstance(fresh, ChannelAffine)


def test_layers_that_have_seen_data_are_left_alone(x: torch.Tensor) -> None:
    seen, fresh = ActNorm(x.shape[1]), ActNorm(x.shape[1])
    seen.fit(3 * x + 1)
    before = {name: value.clone() for name, value in seen.state_dict().items()}
    chain = Chain([seen, fresh])
    initialize_from_data(lambda: chain(x, None), chain)
    assert all(torch.equal(value, before[name]) for name, value in seen.state_dict().items())
    assert bool(fresh.initialized)
    std = chain(x, None)[0].std((0, 2, 3), correction=0)
    torch.testing.assert_close(std, torch.ones_like(std), rtol=1e-3, atol=0)


@pytest.mark.parametrize("flat", ["one channel", "all"])
def test_a_flat_first_batch_does_not_make_the_next_enormous(flat: str) -> None:
    network = small_network(scale_floor=0.3)
    for layer in network.modules():
        if isinstance(layer, ChannelAffine):
            layer.initialized.fill_(False)
    gt, lq = image_pair(4, 4, 6)
    first = gt.clone()
    first[:, slice(0, 1) if flat == "one channel" else slice(None)] = 1.0
    network.initialize(first, lq)
    with torch.no_grad():
        assert network(gt, lq).abs().max() < 1000  # with scales of a million it was 1e12
