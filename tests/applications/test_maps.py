"""Maps: where samples differ, and where the model is surprised."""

from __future__ import annotations

import pytest
import torch

from srflow_plugin.applications.maps import nll_map, sample_std
from srflow_plugin.errors import UserError
from tests.helpers import image_pair, small_network


def test_standard_deviation_over_samples() -> None:
    network = small_network()
    _, lq = image_pair(4, 5, 4)
    samples = network.sample(lq, 0.8, num_samples=6, seed=3).clamp(0, 1)
    expected = 255 * samples.std(0).mean(1) / 0.9515329  # c4(6)
    torch.testing.assert_close(sample_std(network, lq, 0.8, 6, seed=3), expected, rtol=1e-3, atol=1e-3)
    assert sample_std(network, lq, 0.0, 2).max() < 1e-3
    with pytest.raises(UserError, match="num_samples must be 2 or more"):
        sample_std(network, lq, num_samples=1)


@pytest.mark.parametrize(("scale", "num_levels"), [(4, 3), (8, 4), (4, 2)])
def test_nll_map_adds_up_to_the_nll(scale: int, num_levels: int) -> None:
    network = small_network(scale, num_levels=num_levels).double()
    gt, lq = image_pair(scale, 4, 6, dtype=torch.float64)
    pixels = nll_map(network, gt, lq)
    assert pixels.shape == (2, scale * 4, scale * 6)
    torch.testing.assert_close(pixels.mean((1, 2)), network(gt, lq))


def test_nll_map_shows_where_the_surprise_is() -> None:
    network = small_network()
    gt, lq = image_pair(4, 15, 15, batch=1)
    strange = gt.clone()
    strange[:, :, 24:32, 40:48] += torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    risen = (nll_map(network, strange, lq) - nll_map(network, gt, lq))[0]
    assert risen.shape == (60, 60)
    assert risen[24:32, 40:48].mean() > 20 * risen[:16, :16].abs().mean()
