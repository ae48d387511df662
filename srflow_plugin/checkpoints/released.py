"""Released SRFlow files: their names beside ours, both ways."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

import torch

from srflow_plugin.checkpoints.fit import OLDEST_SETTINGS, Weights, hyperparameters, setting_buffers
from srflow_plugin.errors import UserError
from srflow_plugin.flow import PAPER_SCALE_FLOOR
from srflow_plugin.flow.multiscale import TRANSITION_STEPS

# Weights of released files that SRFlow does not use: the RRDB network's image output, a convolution that nothing calls.
UNUSED = re.compile(r"RRDB\.(upconv\d+|HRconv|conv_last)\.(weight|bias)|flowUpsamplerNet\.f\.0\.(weight|bias)")
# Further settings of every released network, which shapes tell.
RELEASED_SHAPES: dict[str, Any] = {
    "coupling_layers": 1,
    "coupling_kernel_size": 1,
    "noise": "none",
    "prior_channels": 0,
}
RELEASED_F_CHANNELS = 96
# By scale and number of RRDBs: those that condition the flow, as the released configurations say.
RELEASED_BLOCKS = {(4, 23): (1, 8, 15, 22), (8, 23): (1, 3, 5, 7), (8, 8): (1, 3, 5, 7)}
logger = logging.getLogger(__name__)

# Names within a flow step. A conditional net is conv, ActNorm, ReLU, conv, ActNorm, ReLU, zero conv; the released one
# keeps each ActNorm inside its convolution.
CONDITIONAL_NET = {
    "0.weight": "0.weight",
    "0.actnorm.bias": "1.bias",
    "0.actnorm.logs": "1.logs",
    "2.weight": "3.weight",
    "2.actnorm.bias": "4.bias",
    "2.actnorm.logs": "4.logs",
    "4.weight": "6.weight",
    "4.bias": "6.bias",
    "4.logs": "6.logs",
}
TRANSITION_STEP = {
    "actnorm.bias": "bijections.0.bias",
    "actnorm.logs": "bijections.0.logs",
    "invconv.weight": "bijections.1.weight",
}
FLOW_STEP = {
    **TRANSITION_STEP,
    **{f"affine.fFeatures.{released}": f"bijections.2.net.{ours}" for released, ours in CONDITIONAL_NET.items()},
    **{f"affine.fAffine.{released}": f"bijections.3.net.{ours}" for released, ours in CONDITIONAL_NET.items()},
}


def from_released(state: Weights, name: str = "the checkpoint") -> tuple[Weights, Weights]:
    """Released names -> weights under our names, and what SRFlow does not use under the released ones.

    What the shapes do not tell is assumed, and logged as a warning.
    """
    layers = {int(match[1]) for key in state if (match := re.match(r"flowUpsamplerNet\.layers\.(\d+)\.", key))}
    steps = {int(match[1]) for key in state if (match := re.match(r"flowUpsamplerNet\.layers\.(\d+)\.affine", key))}
    blocks = {match[1] for key in state if (match := re.match(r"RRDB\.RRDB_trunk\.(\d+)\.", key))}
    upsamplings = {match[1] for key in state if (match := re.match(r"RRDB\.upconv(\d+)\.", key))}
    num_levels = len(set(range(max(layers, default=0))) - layers)  # squeezes count as layers and hold no weights
    if not (steps and blocks and upsamplings and num_levels):
        raise UserError(f"{name} does not hold a whole released SRFlow network")
    num_block = len(blocks)
    names = dict(released_names(num_block, len(upsamplings), num_levels, len(steps) // num_levels))
    missing = [released for released in names if released not in state]
    unknown = [key for key in state if key not in names and not UNUSED.fullmatch(key)]
    if missing or unknown:
        first = f"{missing[0]} is missing" if missing else f"{unknown[0]} is not known"
        raise UserError(f"{name} is not a released SRFlow network as it should be: {first}")

    weights = {ours: state[released] for released, ours in names.items()}
    for key in list(weights):  # every per-channel affine layer has been fitted
        if key.endswith(".logs") and key.removesuffix("logs") + "weight" not in weights:
            weights[key.removesuffix("logs") + "initialized"] = torch.tensor(True)
    scale = 2 ** len(upsamplings)
    blocks_read = _released_feature_blocks(scale, num_block, weights)
    source = "the released configuration" if RELEASED_BLOCKS.get((scale, num_block)) == blocks_read else "a guess"
    logger.warning(
        f"{name} does not say which RRDBs condition its flow: feature_blocks {' '.join(map(str, blocks_read))}, "
        f"{source} for x{scale} with {num_block} RRDBs; scale_floor {PAPER_SCALE_FLOOR:g}, encoder_skip last_block, "
        "as released"
    )
    weights |= setting_buffers(feature_blocks=blocks_read, **OLDEST_SETTINGS)
    return weights, {key: value for key, value in state.items() if key not in names}


def _released_feature_blocks(scale: int, num_block: int, weights: Weights) -> tuple[int, ...]:
    """Choose the RRDBs of a released configuration; for other sizes as many as the injector takes, evenly spaced."""
    injector = f"flow.levels.0.bijections.{1 + TRANSITION_STEPS}.bijections.2.net.0.weight"
    count = weights[injector].shape[1] // weights["encoder.conv_first.weight"].shape[0] - 1
    known = RELEASED_BLOCKS.get((scale, num_block), ())
    if len(known) == count:
        return known
    step = (num_block - 1) // max(1, count - 1)
    return tuple(num_block - 1 - step * back for back in reversed(range(count)))


def to_released(weights: Weights, unused: Weights | None = None) -> Weights:
    """Our names -> a flat state dict under the released ones.

    ``unused`` is what :func:`from_released` put aside. Without it zeros stand in: nothing in SRFlow reads them, but the
    released code asks for the keys.
    """
    arguments = hyperparameters(weights)
    for name, value in {**OLDEST_SETTINGS, **RELEASED_SHAPES}.items():
        if arguments[name] != value:
            raise UserError(f"the released format has {name} {value} only; this network has {arguments[name]}")
    blocks = _released_feature_blocks(arguments["scale"], arguments["num_block"], weights)
    if arguments["feature_blocks"] != blocks:
        raise UserError(
            f"the released format has feature_blocks {blocks} only for this size; this network has "
            f"{arguments['feature_blocks']}"
        )
    num_upsamplings = arguments["scale"].bit_length() - 1
    names = released_names(arguments["num_block"], num_upsamplings, arguments["num_levels"], arguments["num_steps"])
    released = {released: weights[ours] for released, ours in names}
    if not unused:
        width, colours = arguments["num_feat"], arguments["num_in_ch"]
        context = width * (1 + len(arguments["feature_blocks"]))
        unused = {}
        for key, shape in {
            f"RRDB.upconv{num_upsamplings}": (width, width),
            "RRDB.HRconv": (width, width),
            "RRDB.conv_last": (colours, width),
            "flowUpsamplerNet.f.0": (RELEASED_F_CHANNELS, context),
        }.items():
            unused |= {f"{key}.weight": torch.zeros(*shape, 3, 3), f"{key}.bias": torch.zeros(shape[0])}
    return {**released, **unused}


def released_names(num_block: int, num_upsamplings: int, num_levels: int, num_steps: int) -> Iterator[tuple[str, str]]:
    """List every released key that SRFlow uses, with ours."""
    convolutions = {"RRDB.conv_first": "encoder.conv_first", "RRDB.trunk_conv": "encoder.conv_body"}
    for block in range(num_block):
        for dense in range(1, 4):
            for conv in range(1, 6):
                released = f"RRDB.RRDB_trunk.{block}.RDB{dense}.conv{conv}"
                convolutions[released] = f"encoder.body.{block}.rdb{dense}.conv{conv}"
    for number in range(1, num_upsamplings):  # no flow level reads the last one
        convolutions[f"RRDB.upconv{number}"] = f"encoder.upconvs.{number - 1}"
    for released, ours in convolutions.items():
        yield f"{released}.weight", f"{ours}.weight"
        yield f"{released}.bias", f"{ours}.bias"

    layer = 0
    for level in range(num_levels):
        layer += 1  # the squeeze
        for step in range(1, 1 + TRANSITION_STEPS + num_steps):
            for released, ours in (TRANSITION_STEP if step <= TRANSITION_STEPS else FLOW_STEP).items():
                yield f"flowUpsamplerNet.layers.{layer}.{released}", f"flow.levels.{level}.bijections.{step}.{ours}"
            layer += 1
        if level < num_levels - 2:
            for part in ("weight", "bias", "logs"):
                yield f"flowUpsamplerNet.layers.{layer}.conv.{part}", f"flow.splits.{level}.prior.{part}"
            layer += 1
