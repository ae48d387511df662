"""The whole flow, as it is defined."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from srflow_plugin.flow import FlowStep, MultiScaleFlow
from tests.helpers import jacobian_logdet, perturb

CONTEXT, HIDDEN = 3, 4


def make_flow(in_channels: int, num_levels: int) -> MultiScaleFlow:
    step = partial(FlowStep, context_channels=CONTEXT, hidden_channels=HIDDEN)
    return MultiScaleFlow(in_channels, num_levels, 1, step)


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
