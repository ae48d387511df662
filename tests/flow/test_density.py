"""The one likelihood: its units, and that all who tell it tell the same."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from srflow_plugin.applications.maps import nll_map
from srflow_plugin.flow import bits_per_dimension, latents_log_prob, standard_normal_log_prob
from tests.helpers import NETWORKS, image_pair, plain_encode, small_network

EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}


def test_density_units() -> None:
    z = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum((1, 2, 3))
    torch.testing.assert_close(standard_normal_log_prob(z), expected)
    # one bit per dimension is a density of 1/2 in each
    log_half = torch.tensor([0.5]).log() * 48
    torch.testing.assert_close(bits_per_dimension(log_half, 48), torch.ones(1))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("h", "w"), [(4, 6), (3, 5)])
def test_an_encoding_is_what_the_definition_gives(name: str, h: int, w: int) -> None:
    network = small_network(**NETWORKS[name]).double()
    gt, lq = image_pair(network.scale, h, w, dtype=torch.float64)
    with torch.no_grad():
        encoding = network.encoding(gt, lq)
        latents, logdet = plain_encode(network, gt, lq)
    assert encoding.dimensions == sum(latent[0].numel() for latent in latents)
    assert encoding.dimensions == 3 * math.prod(network.scale * size for size in network.padded_lq(lq).shape[2:])
    torch.testing.assert_close(encoding.logdet(), logdet, **EXACT)
    torch.testing.assert_close(encoding.log_prob(), logdet + latents_log_prob(latents), **EXACT)
    prior, of_logdet = encoding.terms()
    torch.testing.assert_close(of_logdet, -logdet / (math.log(2) * encoding.dimensions), **EXACT)
    torch.testing.assert_close(prior + of_logdet, encoding.nll(), **EXACT)
    torch.testing.assert_close(encoding.nll_map().mean((1, 2)), encoding.nll(), **EXACT)


@pytest.mark.parametrize("name", NETWORKS)
def test_whoever_tells_the_nll_tells_the_same(name: str) -> None:
    network = small_network(**NETWORKS[name]).double()
    gt, lq = image_pair(network.scale, 4, 8, dtype=torch.float64)  # which no level has to be extended for
    with torch.no_grad():
        nll = network(gt, lq)
        latents, logdet = network.encode(gt, lq)
        told = {
            "terms": network(gt, lq, terms=True).nll,
            "encode": bits_per_dimension(latents_log_prob(latents) + logdet, gt[0].numel()),
            "encoding": network.encoding(gt, lq).nll(),
            "features": network.encoding(gt, lq, network.features(lq)).nll(),
            "map": nll_map(network, gt, lq).mean((1, 2)),
        }
    for by, value in told.items():
        torch.testing.assert_close(value, nll, **EXACT, msg=by)


def test_the_map_puts_a_latent_where_it_belongs() -> None:
    network = small_network().double()
    gt, lq = image_pair(4, 4, 6, batch=1, dtype=torch.float64)
    with torch.no_grad():
        encoding = network.encoding(gt, lq)
    pixels = encoding.nll_map()
    for latent in encoding.latents:
        side = 16 // latent.shape[2]
        before = latent[0, 0, 1, 0].clone()
        latent[0, 0, 1, 0] += 3
        risen = encoding.nll_map() - pixels
        latent[0, 0, 1, 0] = before
        assert (risen[0, side : 2 * side, :side] > 0).all()
        assert risen.count_nonzero() == side**2
