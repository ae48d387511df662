"""The learned prior: what it begins as, what it reads, and the image that is drawn of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from srflow_plugin import SRFlowNet, load_network
from srflow_plugin.archs.latent_prior import BLOCKS, LatentPrior
from srflow_plugin.checkpoints.convert import Storage, convert
from srflow_plugin.checkpoints.fit import hyperparameters
from srflow_plugin.errors import UserError
from srflow_plugin.sampling.draw import draw
from srflow_plugin.sampling.field import Field
from tests.helpers import NETWORKS, image_pair, small_network


def network_with_prior(scale: int = 4, is_untrained: bool = False, **changes: Any) -> SRFlowNet:
    """Make a small network with a prior that predicts something, or nothing yet."""
    network = small_network(scale, **{"prior_channels": 4, **changes})
    assert network.prior is not None
    for head in network.prior.heads if is_untrained else []:
        for parameter in head.parameters():
            nn.init.zeros_(parameter)
    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_a_prior_has_the_latents_shapes_and_begins_as_temperature_0(name: str) -> None:
    network = network_with_prior(**{"scale": 4, **NETWORKS[name]}, is_untrained=True)
    _, lq = image_pair(network.scale, 5, 7)
    with torch.no_grad():
        latents = network.learned_latents(network.features(lq))
    assert [tuple(latent.shape[1:]) for latent in latents] == network.latent_shapes(5, 7)
    assert torch.equal(network.sample(lq, "learned"), network.sample(lq, 0))


def test_a_new_prior_predicts_zeros() -> None:
    prior = LatentPrior(6, 4, [(6, 4), (96, 1)], unit=2)
    assert all(not level.any() for level in prior(torch.rand(1, 6, 8, 8)))
    assert all(parameter.any() for name, parameter in prior.first.named_parameters() if name == "weight")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_image_is_that_of_the_predicted_latents_each_time(precision: str) -> None:
    network = network_with_prior(precision=precision)
    _, lq = image_pair(4, 5, 7)
    with torch.no_grad():
        features = network.features(lq)
        latents = network.learned_latents(features)
        expected = network.decode(latents, lq)
    assert all(latent.dtype == torch.float32 for latent in latents)
    samples = draw(network, lq, "learned", num_samples=2, seed=3)
    assert samples.images.shape == (2, 2, 3, 20, 28)
    assert torch.equal(samples.images[0], samples.images[1])
    torch.testing.assert_close(samples.images[0], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(network.sample(lq, "learned")[0], network.sample(lq, "learned", seed=8)[0])
    assert torch.equal(network.sample(lq, "learned", features=features), network.sample(lq, "learned"))
    assert not torch.allclose(samples.images[0], network.sample(lq, 0)[0], atol=1e-3)


def test_a_latent_depends_on_what_a_windows_margin_holds() -> None:
    network = network_with_prior().double()
    assert network.prior is not None
    features = torch.rand(1, network.encoder.out_channels, 64, 4, dtype=torch.float64, requires_grad=True)
    for level in network.prior(features):
        row = level.shape[2] // 2
        (gradient,) = torch.autograd.grad(level[:, :, row].sum(), features, retain_graph=True)
        reached = gradient.abs().sum((0, 1, 3)).nonzero()
        above, below = 32 - int(reached.min()), int(reached.max()) - 32
        assert max(above, below) <= 2 + 2 * BLOCKS + 2 * network.lq_multiple <= Field.overlap


@pytest.mark.parametrize("tile", [5, 8])
@pytest.mark.parametrize("scale", [2, 4])
def test_tiles_are_the_whole_image_as_at_temperature_0(tile: int, scale: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Field, "overlap", 24)  # what encoder, prior and one step reach
    changes: dict[str, Any] = {"num_block": 1, "feature_blocks": (0,), "num_steps": 1, "scale_floor": 0.3}
    network = network_with_prior(scale, **changes).double()
    _, lq = image_pair(scale, 60, 7, batch=2, dtype=torch.float64)
    whole, tiled = (network.sample(lq, "learned", tile=side) for side in (None, tile))
    zero, tiled_zero = (network.sample(lq, 0, tile=side) for side in (None, tile))
    assert (tiled_zero - zero).abs().max() < 1e-9
    assert (tiled - whole).abs().max() < 1e-9


# -- checkpoints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("storage", ["float32", "half", "compact"])
def test_a_checkpoint_carries_its_prior(storage: Storage, suffix: str, tmp_path: Path) -> None:
    network = network_with_prior(prior_channels=5)
    torch.save({"params": network.state_dict()}, tmp_path / "net.pth")
    convert(tmp_path / "net.pth", tmp_path / f"again{suffix}", storage=storage)
    again = load_network(tmp_path / f"again{suffix}")
    for name, value in network.state_dict().items():
        if name.startswith("prior."):
            exact = value.half().float() if storage != "float32" and value.ndim > 1 else value
            assert torch.equal(again.state_dict()[name], exact), name
    _, lq = image_pair(4, 5, 7)
    torch.testing.assert_close(again.sample(lq, "learned"), network.sample(lq, "learned"), rtol=0, atol=0.05)


def test_files_without_a_prior_stay_as_they_are() -> None:
    weights = small_network().state_dict()
    assert not any(name.startswith("prior") for name in weights)
    assert hyperparameters(weights)["prior_channels"] == 0
    with_prior = network_with_prior(prior_channels=5).state_dict()
    assert hyperparameters(with_prior)["prior_channels"] == 5
    network = load_network("srflow_x8_face")
    assert network.prior is None
    with pytest.raises(UserError, match="this network has no learned prior"):
        network.learned_latents(network.features(torch.rand(1, 3, 4, 4)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("prior.heads.1.conv.bias"), "prior.heads.1.conv.bias is missing"),
        (lambda weights: weights.pop("prior.first.weight"), "prior.blocks.0.one.bias is not part of it"),
        (lambda weights: weights.update({"prior.first.weight": torch.ones(())}), "too few dimensions"),
    ],
)  # fmt: skip
def test_a_part_of_a_prior_is_none(change: object, message: str) -> None:
    weights = network_with_prior().state_dict()
    change(weights)  # type: ignore[operator]
    with pytest.raises(UserError, match=message):
        load_network(weights)


def test_the_released_format_has_no_prior(tmp_path: Path) -> None:
    torch.save({"params": network_with_prior().state_dict()}, tmp_path / "net.pth")
    with pytest.raises(UserError, match="the released format has prior_channels 0 only; this network has 4"):
        convert(tmp_path / "net.pth", tmp_path / "released.pth", released=True)


@pytest.mark.parametrize(("channels", "message"), [(-1, "0 or more"), (5000, "at most 4096")])
def test_impossible_widths_are_named(channels: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"prior_channels must be {message}"):
        small_network(prior_channels=channels)
