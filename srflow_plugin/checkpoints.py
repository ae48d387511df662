"""Checkpoints: read without running code from them, recognised, translated, and turned into networks.

A file holds an SRFlow network in one of three forms: this project's (``params``, ``params_ema``), safetensors, and the
released one, a flat state dict whose names :func:`released_names` lists beside ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from srflow_plugin.archs.rrdb_encoder import RRDBEncoder
from srflow_plugin.archs.settings import Settings, decode_setting
from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.errors import UserError
from srflow_plugin.files import check_new_file, complete_or_absent
from srflow_plugin.flow import PAPER_SCALE_FLOOR
from srflow_plugin.flow.multiscale import TRANSITION_STEPS

Weights = dict[str, Tensor]

# What released files hold beyond SRFlow: the RRDB network's image output and a convolution that nothing calls.
UNUSED = re.compile(r"RRDB\.(upconv\d+|HRconv|conv_last)\.(weight|bias)|flowUpsamplerNet\.f\.0\.(weight|bias)")
UNUSED_PREFIX = "unused."
# What every released network is, as shapes tell it and as they do not.
RELEASED_SHAPES: dict[str, Any] = {"coupling_layers": 1, "coupling_kernel_size": 1, "noise": "none"}
RELEASED_SETTINGS: dict[str, Any] = {
    "scale_floor": PAPER_SCALE_FLOOR,
    "log_scale_bound": None,
    "encoder_skip": "last_block",
}
RELEASED_F_CHANNELS = 96
CONVOLUTION_NDIM = 4
SCALE_SUFFIX = ".scale"  # of a convolution stored in eight bits
Storage = Literal["float32", "half", "compact"]

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


def load_network(source: str | Path | Mapping[str, Any], param_key: str = "params_ema", **overrides: Any) -> SRFlowNet:
    """Build the network that a checkpoint holds, in eval mode, its hyperparameters read from the checkpoint itself.

    Args:
        source: a file, or a state dict, of this project or released, with or without ``module.``.
        param_key: "params_ema" or "params"; the other where a file has only that.
        overrides: keyword arguments of SRFlowNet. Released files do not tell ``feature_blocks``: without an override
            they are evenly spaced up to the last RRDB (23 RRDBs: 1, 8, 15, 22; 8: 1, 3, 5, 7).

    Raises:
        UserError: a file that cannot be read, or holds something else, with what it is.
    """
    name = str(source) if isinstance(source, str | Path) else "the state dict"
    state = read_checkpoint(Path(source)) if isinstance(source, str | Path) else source
    weights = network_weights(state, param_key, name)
    try:
        network = SRFlowNet(**{**hyperparameters(weights, name), **overrides})
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None
    overridden = {f"settings.{name}" for name in overrides}
    weights |= {key: value for key, value in network.state_dict().items() if key in overridden}
    check_fit(weights, network, name, "the network that its shapes tell")
    network.load_state_dict(weights)
    return network.eval()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a file without running code from it."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; correct the path")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (Exception, SafetensorError) as error:
        lines = str(error).strip().splitlines()
        raise UserError(f"{path} is not a readable checkpoint: {lines[0] if lines else type(error).__name__}") from None
    if not isinstance(state, dict):
        raise UserError(f"{path} is not a checkpoint: it holds a {type(state).__name__}")
    return state


def network_weights(state: Mapping[str, Any], param_key: str = "params", name: str = "the checkpoint") -> Weights:
    """The weights of an SRFlowNet under our names, from whichever kind of checkpoint."""
    return _weights_and_unused(state, param_key, name)[0]


def _weights_and_unused(state: Mapping[str, Any], param_key: str, name: str) -> tuple[Weights, Weights]:
    """Weights under our names, and what SRFlow does not use of a released file under the released ones."""
    flat = flat_weights(state, param_key, name)
    if any(key.startswith("flowUpsamplerNet.") for key in flat):
        return from_released(flat, name)
    if any(key.startswith("flow.") for key in flat):
        unused = {key.removeprefix(UNUSED_PREFIX): flat[key] for key in flat if key.startswith(UNUSED_PREFIX)}
        weights = {key: value for key, value in flat.items() if not key.startswith(UNUSED_PREFIX)}
        # A checkpoint older than a setting has none; the network then was as the released ones are.
        weights = {**_setting_buffers(**RELEASED_SETTINGS), **weights}
        return weights, unused or dict(state.get("unused", {}))
    if any(key.startswith(("body.", "RRDB_trunk.", "model.")) for key in flat):
        raise UserError(f"{name} holds an RRDB network, not SRFlow: give it as path.pretrain_network_encoder")
    raise UserError(f"{name} holds no SRFlow network; its first key is {next(iter(flat), 'missing')!r}")


def encoder_weights(state: Mapping[str, Any], param_key: str = "params", name: str = "the checkpoint") -> Weights:
    """The weights of an RRDBNet of BasicSR or ESRGAN under the names of our encoder; its image output is left out.

    An x4 RRDBNet has what the encoders of SRFlow x4 and x8 read. It adds its trunk to the output of conv_first: build
    the SRFlowNet with ``encoder_skip="conv_first"``.
    """
    weights = {}
    for key, value in flat_weights(state, param_key, name).items():
        key = re.sub(r"^RRDB_trunk\.(\d+)\.RDB", r"body.\1.rdb", key)
        key = re.sub(r"^trunk_conv\.", "conv_body.", key)
        key = re.sub(r"^(?:conv_up|upconv)(\d+)\.", lambda match: f"upconvs.{int(match[1]) - 1}.", key)
        if re.match(r"(conv_first|body|conv_body|upconvs)\.", key):
            weights[key] = value
    if "conv_first.weight" not in weights:
        raise UserError(f"{name} holds no RRDB network; its first key is {next(iter(state), 'missing')!r}")
    return weights


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


def flat_weights(state: Mapping[str, Any], param_key: str, name: str) -> Weights:
    present = [key for key in (param_key, "params_ema", "params") if key in state]
    flat = state[present[0]] if present else state
    if not isinstance(flat, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in flat.items()
    ):
        raise UserError(f"{name} holds no weights; it has {', '.join(map(repr, list(state)[:5])) or 'nothing'}")
    return {
        key.removeprefix("module."): value * flat[key + SCALE_SUFFIX] if key + SCALE_SUFFIX in flat else value
        for key, value in flat.items()
        if not key.endswith(SCALE_SUFFIX)
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
            name: decode_setting(weights[f"settings.{name}"]) for name in ("feature_blocks", *RELEASED_SETTINGS)
        }
        hidden_channels, context_channels = weights[f"{step}.bijections.2.net.0.weight"].shape[:2]
        feature_channels = num_feat * (1 + len(settings["feature_blocks"]))
        return {
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
            "noise": "conditional" if context_channels > feature_channels else "none",
            **settings,
        }
    except KeyError as error:
        raise UserError(f"{name} does not hold a whole SRFlow network: {error.args[0]} is missing") from None


def _setting_buffers(**values: Any) -> Weights:
    return {f"settings.{name}": value for name, value in Settings(**values).named_buffers()}


# -- released files ----------------------------------------------------------------------------------------------------


def from_released(state: Weights, name: str = "the checkpoint") -> tuple[Weights, Weights]:
    """Released names -> weights under our names, and what SRFlow does not use under the released ones."""
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
    weights |= _setting_buffers(feature_blocks=_released_feature_blocks(num_block, weights), **RELEASED_SETTINGS)
    return weights, {key: value for key, value in state.items() if key not in names}


def _released_feature_blocks(num_block: int, weights: Weights) -> tuple[int, ...]:
    """The released convention: evenly spaced up to the last RRDB, as many as the injector's input has room for."""
    injector = f"flow.levels.0.bijections.{1 + TRANSITION_STEPS}.bijections.2.net.0.weight"
    count = weights[injector].shape[1] // weights["encoder.conv_first.weight"].shape[0] - 1
    step = (num_block - 1) // max(1, count - 1)
    return tuple(num_block - 1 - step * back for back in reversed(range(count)))


def to_released(weights: Weights, unused: Weights | None = None) -> Weights:
    """Our names -> a flat state dict under the released ones.

    ``unused`` is what :func:`from_released` put aside. Without it zeros stand in: nothing in SRFlow reads them, but the
    released code asks for the keys.
    """
    arguments = hyperparameters(weights)
    for name, value in {**RELEASED_SETTINGS, **RELEASED_SHAPES}.items():
        if arguments[name] != value:
            raise UserError(f"the released networks have {name} {value}, not {arguments[name]}: no way to say so there")
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
    """Every released key that SRFlow uses, with ours."""
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


# -- conversion --------------------------------------------------------------------------------------------------------


def convert(
    source: Path,
    target: Path,
    released: bool = False,
    storage: Storage = "float32",
    param_key: str = "params_ema",
) -> None:
    """Write a checkpoint in another format: ours (``.pth``), ``.safetensors``, or with ``released`` the released one.

    What SRFlow does not use of a released file goes along, so that the way back gives the same bits. ``storage`` is as
    in :func:`stored`, ``param_key`` as in :func:`load_network`. The target appears when complete, or not at all.
    """
    check_new_file(target)
    state = read_checkpoint(source)
    weights, unused = _weights_and_unused(state, param_key, str(source))
    weights = stored(weights, storage)
    with complete_or_absent(target) as unfinished:
        if released:
            _save(to_released(weights, unused), unfinished, target)
        elif target.suffix == ".safetensors":
            extra = {UNUSED_PREFIX + key: value for key, value in unused.items()}
            _save({**weights, **extra}, unfinished, target)
        else:
            _save({"params": weights, **({"unused": unused} if unused else {})}, unfinished, target)


def stored(weights: Weights, storage: Storage) -> Weights:
    """Weights in less space: "half" has matrices and convolutions in float16, "compact" the encoder's convolutions in
    int8 moreover, with a scale for each output channel. :func:`flat_weights` reads them; networks work in float32.
    """
    result = {}
    for key, value in weights.items():
        if storage == "compact" and value.ndim == CONVOLUTION_NDIM and key.startswith("encoder."):
            scale = value.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
            result[key], result[key + SCALE_SUFFIX] = (value / scale).round().to(torch.int8), scale
        else:
            is_large = storage != "float32" and value.ndim > 1 and value.is_floating_point()
            result[key] = value.half() if is_large else value
    return result


def _save(state: dict[str, Any], file: Path, target: Path) -> None:
    if target.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, file)
    else:
        torch.save(state, file)
