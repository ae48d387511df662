"""The contract of every invertible layer: it can be undone, and its log-det is that of its Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from conftest import perturb

from srflow_plugin.flow import (
    ActNorm,
    AffineCoupling,
    AffineInjector,
    Bijection,
    Chain,
    ChannelAffine,
    FlowStep,
    InvertibleConv1x1,
    MultiScaleFlow,
    Split,
    Squeeze,
    bits_per_dimension,
    bounded_scale,
    initialize_from_data,
    standard_normal_log_prob,
)

CHANNELS, CONTEXT, HIDDEN = 5, 3, 4
BOUNDED = partial(bounded_scale, bound=0.5)

# A new layer is one line.
BIJECTIONS: dict[str, Callable[[], Bijection]] = {
    "ActNorm": lambda: ActNorm(CHANNELS),
    "InvertibleConv1x1": lambda: InvertibleConv1x1(CHANNELS),
    "Squeeze": Squeeze,
    "AffineInjector": lambda: AffineInjector(CHANNELS, CONTEXT, HIDDEN),
    "AffineCoupling": lambda: AffineCoupling(CHANNELS, CONTEXT, HIDDEN),
    "AffineInjector, bounded": lambda: AffineInjector(CHANNELS, CONTEXT, HIDDEN, BOUNDED),
    "AffineCoupling, bounded": lambda: AffineCoupling(CHANNELS, CONTEXT, HIDDEN, BOUNDED),
    "AffineCoupling, deep": lambda: AffineCoupling(CHANNELS, CONTEXT, HIDDEN, hidden_layers=4, kernel_size=3),
    "Chain": lambda: Chain([ActNorm(CHANNELS), AffineCoupling(CHANNELS, CONTEXT, HIDDEN)]),
}


def make_flow(in_channels: int, num_levels: int) -> MultiScaleFlow:
    step = partial(FlowStep, context_channels=CONTEXT, hidden_channels=HIDDEN)
    return MultiScaleFlow(in_channels, num_levels, 1, step)


def jacobian_logdet(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """log|det| of the Jacobian of ``function`` at one input, by autograd."""
    jacobian = torch.autograd.functional.jacobian(lambda flat: function(flat.view_as(x)).flatten(), x.flatten())
    return torch.linalg.slogdet(jacobian).logabsdet


@pytest.fixture(params=BIJECTIONS)
def bijection(request: pytest.FixtureRequest) -> Bijection:
    torch.manual_seed(0)
    layer = BIJECTIONS[request.param]().double()
    perturb(layer, amount=0.3)
    return layer


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, CHANNELS, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def context() -> torch.Tensor:
    return torch.randn(2, CONTEXT, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_round_trip_and_opposite_logdets(bijection: Bijection, x: torch.Tensor, context: torch.Tensor) -> None:
    y, logdet = bijection(x, context)
    back, inverse_logdet = bijection.inverse(y, context)
    assert y.shape[0] == 2 and not torch.equal(y.flatten(), x.flatten())
    assert logdet.shape == inverse_logdet.shape == (2,)
    torch.testing.assert_close(back, x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(inverse_logdet, -logdet, rtol=1e-12, atol=1e-12)


def test_logdet_is_that_of_the_jacobian(bijection: Bijection, x: torch.Tensor, context: torch.Tensor) -> None:
    _, logdet = bijection(x, context)
    for index in range(2):
        one = slice(index, index + 1)
        expected = jacobian_logdet(lambda image, one=one: bijection(image, context[one])[0], x[one])
        torch.testing.assert_close(logdet[index], expected, rtol=1e-10, atol=1e-10)


def test_split_hands_out_a_standardised_latent(x: torch.Tensor) -> None:
    split = perturb(Split(CHANNELS).double(), amount=0.3)
    kept, latent, logdet = split(x)
    assert kept.shape[1] + latent.shape[1] == CHANNELS
    back, inverse_logdet = split.inverse(kept, latent)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(inverse_logdet, -logdet)
    expected = jacobian_logdet(lambda image: torch.cat(split(image)[:2], dim=1), x[:1])
    torch.testing.assert_close(logdet[0], expected)


@pytest.mark.parametrize("num_levels", [1, 2, 3, 4])
def test_multiscale_flow(num_levels: int) -> None:
    torch.manual_seed(0)
    flow = perturb(make_flow(1, num_levels).double(), amount=0.05)
    height, width = 2**num_levels, 2 ** (num_levels + 1)
    x = torch.randn(1, 1, height, width, dtype=torch.float64)
    contexts = [
        torch.randn(1, CONTEXT, height >> level, width >> level, dtype=torch.float64)
        for level in range(1, num_levels + 1)
    ]
    latents, logdet = flow(x, contexts)
    assert [tuple(latent.shape[1:]) for latent in latents] == flow.latent_shapes(height, width)
    assert len(latents) == max(1, num_levels - 1)
    back, inverse_logdet = flow.inverse(latents, contexts)
    torch.testing.assert_close(back, x, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(inverse_logdet, -logdet)
    expected = jacobian_logdet(lambda image: torch.cat([z.flatten() for z in flow(image, contexts)[0]]), x)
    torch.testing.assert_close(logdet[0], expected)


def test_released_latent_shapes() -> None:
    # spec: x4, L = 3 and x8, L = 4, for an HR image of (H, W)
    x4, x8 = (make_flow(3, num_levels) for num_levels in (3, 4))
    assert x4.latent_shapes(160, 80) == [(6, 80, 40), (96, 20, 10)]
    assert x8.latent_shapes(160, 80) == [(6, 80, 40), (12, 40, 20), (192, 10, 5)]


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


def test_density_units() -> None:
    z = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum((1, 2, 3))
    torch.testing.assert_close(standard_normal_log_prob(z), expected)
    # one bit per dimension is a density of 1/2 in each
    log_half = torch.tensor([0.5]).log() * 48
    torch.testing.assert_close(bits_per_dimension(log_half, 48), torch.ones(1))
