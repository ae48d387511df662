"""Released networks: their numbers, their sizes, their names."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch

from srflow_plugin import SRFlowNet, load_network
from srflow_plugin.checkpoints.fit import Weights
from srflow_plugin.checkpoints.released import from_released, released_names, to_released
from srflow_plugin.errors import UserError
from srflow_plugin.flow import bits_per_dimension, latents_log_prob
from tests.helpers import SHARED, image_pair, plain_encode, small_network

REFERENCE = SHARED / "reference"


def reference_weights(name: str) -> Weights:
    """The recorded network's weights under the released names."""
    if not REFERENCE.is_dir():
        pytest.skip(f"{REFERENCE} with the released networks' outputs is not on this machine")
    spec = importlib.util.spec_from_file_location("make_weights", REFERENCE / "make_weights.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    state = module.state_dict_from_keys(REFERENCE / f"{name}_keys.json")
    return {key: torch.from_numpy(value) for key, value in state.items()}


class Plain:
    """A network whose flow goes layer by layer, in the recorded one's order of additions."""

    def __init__(self, network: SRFlowNet) -> None:
        self.network, self.encoder, self.scale = network, network.encoder, network.scale

    def encode(self, gt: torch.Tensor, lq: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        return plain_encode(self.network, gt, lq)

    def decode(self, latents: list[torch.Tensor], lq: torch.Tensor) -> torch.Tensor:
        return self.network.flow.inverse(latents, self.encoder(lq))[0]

    def __call__(self, gt: torch.Tensor, lq: torch.Tensor) -> torch.Tensor:
        latents, logdet = self.encode(gt, lq)
        return bits_per_dimension(logdet + latents_log_prob(latents), gt[0].numel())


# The recording is float32 itself and errs by up to 2e-5, as float64 shows.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [(Plain, torch.float32, 1e-5), (lambda net: net, torch.float32, 3e-5), (lambda net: net, torch.float64, 3e-5)],
)
@pytest.mark.parametrize("name", ["srflow_x4_small", "srflow_x8_small"])
def test_released_networks_numbers(name: str, kind: Any, dtype: torch.dtype, tolerance: float) -> None:
    network = kind(load_network(reference_weights(name)).to(dtype))
    reference = {key: torch.from_numpy(value).to(dtype) for key, value in np.load(REFERENCE / f"{name}.npz").items()}
    gt, lq = reference["gt"], reference["lr"]
    close: dict[str, Any] = {"rtol": tolerance, "atol": tolerance}

    with torch.no_grad():
        latents, logdet = network.encode(gt, lq)
        for index, latent in enumerate(latents):
            torch.testing.assert_close(latent, reference[f"encoded_latent_{index}"], **close)
        # The released log-det counts the split latents' densities in; the released NLL is in bits per pixel.
        normal = torch.distributions.Normal(0.0, 1.0)
        densities = sum(normal.log_prob(latent.double()).sum((1, 2, 3)) for latent in latents[:-1])
        torch.testing.assert_close(logdet.double() + densities, reference["logdet"].double(), rtol=1e-5, atol=0.02)
        torch.testing.assert_close(3 * network(gt, lq), reference["nll"], **close)

        given = [reference[f"decode_latent_{index}"] for index in range(len(latents))]
        torch.testing.assert_close(network.decode(given, lq), reference["sr"], **close)
        level = {4: 1, 8: 2}[network.scale]
        corner = reference["fea_up1"]
        features = network.encoder(lq)[level][:, :, : corner.shape[2], : corner.shape[3]]
        torch.testing.assert_close(features, corner, **close)


@pytest.mark.slow
def test_hyperparameters_of_the_released_networks() -> None:
    # The sizes of spec/srflow.md, section 4, under the released names, as empty tensors.
    general, faces = (1, 8, 15, 22), (1, 3, 5, 7)
    for scale, num_levels, num_block, blocks in [(4, 3, 23, general), (8, 4, 23, faces), (8, 4, 8, faces)]:
        with torch.device("meta"):
            network = SRFlowNet(scale=scale, num_levels=num_levels, num_block=num_block, feature_blocks=blocks)
            released = to_released(network.state_dict())
        weights, unused = from_released(released)
        assert weights.keys() == network.state_dict().keys()
        assert weights["settings.feature_blocks"].tolist() == list(blocks)
        assert len(released) == len(list(released_names(num_block, scale.bit_length() - 1, num_levels, 16))) + len(
            unused
        )


def test_a_network_that_the_released_code_does_not_know_is_not_written_for_it() -> None:
    for setting in (
        {"scale_floor": 0.1},
        {"log_scale_bound": 1.0},
        {"encoder_skip": "conv_first"},
        {"coupling_layers": 2},
        {"noise": "conditional"},
    ):
        with pytest.raises(UserError, match=f"the released format has {next(iter(setting))}"):
            to_released(small_network(4, **setting).state_dict())


@pytest.mark.parametrize(
    ("scale", "num_levels", "num_block", "blocks"),
    [(4, 3, 23, (1, 8, 15, 22)), (8, 4, 23, (1, 3, 5, 7)), (8, 4, 8, (1, 3, 5, 7))],
)
def test_a_released_file_is_computed_with_the_blocks_of_its_configuration_and_that_is_said(
    scale: int, num_levels: int, num_block: int, blocks: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    # Random weights, their flow layer by layer with exactly these RRDBs' outputs, enlarged, behind each level's own.
    sizes = {"num_feat": 4, "num_grow_ch": 2, "hidden_channels": 4, "num_steps": 1, "scale_floor": 1e-4}
    released = to_released(
        small_network(scale, num_levels=num_levels, num_block=num_block, feature_blocks=blocks, **sizes).state_dict()
    )
    network = load_network(released).double()
    (said,) = (record.message for record in caplog.records)
    assert f"feature_blocks {' '.join(map(str, blocks))}, the released configuration for x{scale}" in said
    gt, lq = image_pair(scale, 4, 4, dtype=torch.float64)
    encoder = network.encoder
    with torch.no_grad():
        hidden, outputs = encoder.conv_first(lq), []
        for block in encoder.body:
            hidden = block(hidden)
            outputs.append(hidden)
        own = [encoder.conv_body(hidden) + hidden]
        for conv in encoder.upconvs:
            enlarged = torch.nn.functional.interpolate(own[-1], scale_factor=2, mode="nearest")
            own.append(torch.nn.functional.leaky_relu(conv(enlarged), 0.2))
        half = torch.nn.functional.interpolate(own[0], scale_factor=0.5, mode="bilinear", align_corners=False)
        contexts = []
        for features in [*reversed(own), half][:num_levels]:
            size = features.shape[2:]
            coarse = [torch.nn.functional.interpolate(outputs[block], size, mode="nearest") for block in blocks]
            contexts.append(torch.cat([features, *coarse], dim=1))
        latents, logdet = network.flow(gt, contexts)
        ours, our_logdet = network.encode(gt, lq)
    for one, other in zip(ours, latents, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(our_logdet, logdet, rtol=1e-9, atol=1e-9)


def test_other_blocks_than_the_released_configuration_are_not_written_for_it() -> None:
    network = small_network(8, num_levels=4, num_block=23, feature_blocks=(1, 8, 15, 22))
    with pytest.raises(UserError, match=r"the released format has feature_blocks \(1, 3, 5, 7\) only for this size"):
        to_released(network.state_dict())


def test_a_size_that_was_never_released_is_a_guess(caplog: pytest.LogCaptureFixture) -> None:
    load_network(to_released(small_network().state_dict()))
    assert "feature_blocks 0 1, a guess for x4 with 2 RRDBs" in caplog.text
