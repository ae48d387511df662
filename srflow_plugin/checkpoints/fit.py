"""Fit of a network and weights: hyperparameters read from a state dict, and the complaint where it does not fit."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

from srflow_plugin.archs.rrdb_encoder import RRDBEncoder
from srflow_plugin.archs.settings import Settings, decode_setting
from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.errors import UserError
from srflow_plugin.flow import PAPER_SCALE_FLOOR
from srflow_plugin.flow.multiscale import TRANSITION_STEPS

Weights = dict[str, Tensor]
PRIOR = "prior."  # that the learned prior's weights begin with
PRIOR_WEIGHT = f"{PRIOR}first.weight"
TENSORS_OF_RRDB = 30  # three blocks of five convolutions, a weight and a bias each

# Values for files that are older than these settings, as every released one is.
OLDEST_SETTINGS: dict[str, Any] = {
    "scale_floor": PAPER_SCALE_FLOOR,
    "log_scale_bound": None,
    "encoder_skip": "last_block",
    "one_sided_noise": None,
}


def check_fit(weights: Weights, network: SRFlowNet, name: str, what: str = "network_g", strict: bool = True) -> None:
    """Check that weights can be loaded into a network, which may be one without memory."""
    expected = network.state_dict()
    _check_shapes(weights, expected, f"{name} does not fit {what}", what)
    missing, extra = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if strict and (missing or extra):
        first = f"{missing[0]} is missing" if missing else f"{extra[0]} is not part of it"
        raise UserError(f"{name} does not fit {what}: {first} ({len(missing)} keys missing, {len(extra)} too many)")
    differences = network.settings.differences(weights, "settings.")
    if differences:
        raise UserError(f"{name} does not fit {what}: {differences[0]}")


def _check_shapes(weights: Weights, expected: Weights, complaint: str, what: str) -> None:
    for key, value in expected.items():
        if key in weights and weights[key].shape != value.shape:
            shapes = f"{list(weights[key].shape)} there, {list(value.shape)} in {what}"
            raise UserError(f"{complaint}: {key} is {shapes}")


def hyperparameters(weights: Weights, name: str = "the checkpoint") -> dict[str, Any]:
    """Keyword arguments of the SRFlowNet that has these weights (our names)."""

    def count(pattern: str) -> int:
        return len({match[1] for key in weights if (match := re.match(pattern, key))})

    step = f"flow.levels.0.bijections.{1 + TRANSITION_STEPS}"
    try:
        num_feat, num_in_ch = weights["encoder.conv_first.weight"].shape[:2]
        settings: dict[str, Any] = {
            key: decode_setting(weights[f"settings.{key}"]) for key in ("feature_blocks", *OLDEST_SETTINGS)
        }
        hidden_channels, context_channels = weights[f"{step}.bijections.2.net.0.weight"].shape[:2]
        feature_channels = num_feat * (1 + len(settings["feature_blocks"]))
        arguments = {
            "num_in_ch": num_in_ch,
            "num_feat": num_feat,
            "num_grow_ch": weights["encoder.body.0.rdb1.conv1.weight"].shape[0],
            "num_block": count(r"encoder\.body\.(\d+)\."),
            "scale": 2 ** (1 + count(r"encoder\.upconvs\.(\d+)\.")),
            "num_levels": count(r"flow\.levels\.(\d+)\."),
            "num_steps": count(r"flow\.levels\.0\.bijections\.(\d+)\.") - TRANSITION_STEPS,
            "hidden_channels": hidden_channels,
            "coupling_layers": count(re.escape(step) + r"\.bijections\.3\.net\.(\d+)\.initialized") - 1,
            "coupling_kernel_size": weights[f"{step}.bijections.3.net.3.weight"].shape[-1],
            "prior_channels": weights[PRIOR_WEIGHT].shape[0] if PRIOR_WEIGHT in weights else 0,
            "noise": "conditional" if context_channels > feature_channels else "none",
            **settings,
        }
    except KeyError as error:
        raise UserError(f"{name} does not hold a whole SRFlow network: {error.args[0]} is missing") from None
    except UserError as error:
        raise UserError(f"{name} does not hold a whole SRFlow network: {error}") from None
    except (IndexError, ValueError):
        raise UserError(f"{name} does not hold a whole SRFlow network: its tensors have too few dimensions") from None
    layers = arguments["num_levels"] * (arguments["num_steps"] + TRANSITION_STEPS) * arguments["coupling_layers"]
    needed = TENSORS_OF_RRDB * arguments["num_block"] + layers  # at least; building what is absurd would take long
    if needed > len(weights):
        parts = f"{arguments['num_block']} RRDBs and {arguments['num_levels']} levels"
        raise UserError(
            f"{name} does not hold a whole SRFlow network: {parts} are more than its {len(weights)} tensors"
        )
    return arguments


def with_prior_of(network: nn.Module, weights: Weights, is_trained: bool = False) -> Weights:
    """Leave out the learned prior of weights for a network without one.

    With ``is_trained`` weights without a prior are filled up with that of the network. Others stay as they are.
    """
    own = {key: value for key, value in network.state_dict().items() if key.startswith(PRIOR)}
    has_prior = any(key.startswith(PRIOR) for key in weights)
    if not own:
        return {key: value for key, value in weights.items() if not key.startswith(PRIOR)}
    return {**weights, **own} if is_trained and not has_prior else weights


def setting_buffers(**values: Any) -> Weights:
    return {f"settings.{name}": value for name, value in Settings(**values).named_buffers()}


def check_encoder_fit(weights: Weights, encoder: RRDBEncoder, name: str) -> Weights:
    """Check that an RRDB network's weights fill an encoder; return those that it reads."""
    expected = encoder.state_dict()
    for key in expected:
        if key not in weights:
            raise UserError(f"{name} does not fit the encoder of network_g: {key} is missing")
    _check_shapes(weights, expected, f"{name} does not fit the encoder of network_g", "network_g")
    blocks = {key.split(".")[1] for key in weights if key.startswith("body.")}
    if len(blocks) != len(encoder.body):
        raise UserError(f"{name} has {len(blocks)} RRDBs, the encoder of network_g {len(encoder.body)}")
    return {key: weights[key] for key in expected}
