"""The contract of every invertible layer: it can be undone, and its log-det is that of its Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from srflow_plugin.flow import (
    ActNorm,
    AffineCoupling,
    AffineInjector,
    Bijection,
    Chain,
    InvertibleConv1x1,
    Squeeze,
    bounded_scale,
)
from tests.helpers import jacobian_logdet, perturb

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
        own_x, own_context = (tensor[index : index + 1] for tensor in (x, context))

        def encode(image: torch.Tensor, context: torch.Tensor = own_context) -> torch.Tensor:
            y: torch.Tensor = bijection(image, context)[0]
            return y

        expected = jacobian_logdet(encode, own_x)
        torch.testing.assert_close(logdet[index], expected, rtol=1e-10, atol=1e-10)
