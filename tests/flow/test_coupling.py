"""The split and its prior; injector and coupling are in the contract's table."""

from __future__ import annotations

import torch

from srflow_plugin.flow import Split
from tests.helpers import jacobian_logdet, perturb

CHANNELS = 5


def test_split_hands_out_a_standardised_latent() -> None:
    x = torch.randn(2, CHANNELS, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    split = perturb(Split(CHANNELS).double(), amount=0.3)
    kept, latent, logdet = split(x)
    assert kept.shape[1] + latent.shape[1] == CHANNELS
    back, inverse_logdet = split.inverse(kept, latent)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(inverse_logdet, -logdet)
    expected = jacobian_logdet(lambda image: torch.cat(split(image)[:2], dim=1), x[:1])
    torch.testing.assert_close(logdet[0], expected)
