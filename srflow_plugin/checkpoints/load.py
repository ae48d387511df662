"""Checkpoints: read without running code from them, recognised, translated, and turned into networks.

A file holds an SRFlow network in one of three forms: this project's (``params``, ``params_ema``), safetensors, and the
released one (:mod:`released`).
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.checkpoints.fit import OLDEST_SETTINGS, Weights, check_fit, hyperparameters, setting_buffers
from srflow_plugin.checkpoints.foreign import is_safetensors, what_is
from srflow_plugin.checkpoints.released import from_released
from srflow_plugin.checkpoints.sealed import read_sealed
from srflow_plugin.checkpoints.shipped import find_checkpoint
from srflow_plugin.checkpoints.torch_files import read_torch
from srflow_plugin.errors import UserError
from srflow_plugin.files import check_is_file

UNUSED_PREFIX = "unused."
LONGEST_NAME = 200  # of a tensor
NO_MEMORY = "there is not enough memory for it"
SAFE_TORCH = (2, 6)  # the first whose weights-only loading runs no code
WRAPPINGS = (
    *("params_ema", "params", "state_dict", "model_state_dict", "model", "network", "net_g", "netG", "generator"),
    *("net", "weights", "ema", "module"),
)
MOST_WRAPPINGS = 8
PREFIXES = ("module.", "_orig_mod.", "net_g.", "netG.", "generator.", "network.", "net.", "module.")
TRAINING_STATE = {"iter", "optimizers", "schedulers"}
SCALE_SUFFIX = ".scale"  # of a convolution stored in eight bits
logger = logging.getLogger(__name__)


def load_network(source: str | Path | Mapping[str, Any], param_key: str = "params_ema", **overrides: Any) -> SRFlowNet:
    """Build the network that a checkpoint holds, in eval mode, its hyperparameters read from the checkpoint itself.

    Args:
        source: a file, the name of a network of the package ("srflow_x4", "srflow_x4_real", "srflow_x8_face"), an
            address of the Hugging Face Hub ("hf://user/name"), or a state dict; of this project or released, with or
            without ``module.``.
        param_key: "params_ema" or "params"; the other where a file has only that.
        overrides: keyword arguments of SRFlowNet, in place of what the checkpoint says or, where it says nothing, of
            what is assumed. An assumption is logged as a warning: released files do not tell ``feature_blocks`` (the
            released configurations: x4 with 23 RRDBs 1, 8, 15, 22; x8 1, 3, 5, 7).

    Raises:
        UserError: a file that cannot be read, or holds something else, with what it is.

    >>> network = load_network("srflow_x4")
    >>> network.scale, network.training
    (4, False)
    """
    name = str(source) if isinstance(source, str | Path) else "the state dict"
    state = read_checkpoint(find_checkpoint(source)) if isinstance(source, str | Path) else source
    weights = network_weights(state, param_key, name)
    network = network_of(weights, name, **overrides)
    network.load_state_dict(weights)
    return network.eval()


def network_of(weights: Weights, name: str, **overrides: Any) -> SRFlowNet:
    """Build the network that weights are of, without loading them; settings that are overridden are put into them.

    Raises:
        UserError: they are of none, or not all of one.
    """
    arguments = {**hyperparameters(weights, name), **overrides}
    try:
        with torch.device("meta"):  # without memory: the weights may be too few for the network that they claim
            network = SRFlowNet(**arguments)
    except (OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{name}: {' '.join(str(error).split()):.300}") from None
    overridden = {f"settings.{name}" for name in overrides}
    weights |= {key: value for key, value in network.state_dict().items() if key in overridden}
    check_fit(weights, network, name, "the network that its shapes tell")
    return SRFlowNet(**arguments)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a file without running code from it; its contents, not its name, say whether it is safetensors.

    Raises:
        UserError: it is not there, cannot be read, or is something else, with what it is.
    """
    state = read_file(path)
    if not isinstance(state, dict):
        raise UserError(f"{path} is not a checkpoint: it holds a {type(state).__name__}")
    return state


def read_file(path: Path, device: Any = "cpu") -> Any:
    """Read whatever tensors a file holds, as :func:`read_checkpoint` does, on a device."""
    check_is_file(path)
    try:
        if is_safetensors(path):
            return dict(read_sealed(path)[0])
        _check_torch(path)
        return read_torch(path, device)
    except UserError:
        raise
    except (Exception, SafetensorError) as error:
        # A file that is cut off sends PyTorch to places before its start, which is an OSError, too.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
        reason = _reason(error, path)
        raise UserError(f"{path} is not a readable checkpoint: {reason}") from (error if reason == NO_MEMORY else None)


def _reason(error: Exception, path: Path) -> str:
    """Say in a line of our own why a file could not be read; PyTorch's advice is to let it run code."""
    unknown = re.search(r"GLOBAL (\S+)", str(error))
    if unknown:
        return f"it holds {unknown[1]}, which is not loaded because that could run code"
    if isinstance(error, MemoryError) or "allocate" in str(error):
        return NO_MEMORY
    kind = what_is(path)
    return f"it is {kind}" if kind else "it is damaged, or holds something else than weights"


def _check_torch(path: Path) -> None:
    """Refuse what an old torch cannot read safely (CVE-2025-32434)."""
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < SAFE_TORCH:
        raise UserError(
            f"{path}: PyTorch {torch.__version__} can be made to run code by such a file; update it to 2.6 or newer, "
            "or take a .safetensors file"
        )


def network_weights(state: Mapping[str, Any], param_key: str = "params", name: str = "the checkpoint") -> Weights:
    """Find the weights of an SRFlowNet, under our names, in whichever kind of checkpoint."""
    return weights_and_unused(state, param_key, name)[0]


def weights_and_unused(state: Mapping[str, Any], param_key: str, name: str) -> tuple[Weights, Weights]:
    """Weights under our names, and what SRFlow does not use of a released file under the released ones."""
    flat = flat_weights(state, param_key, name)
    if any(key.startswith("flowUpsamplerNet.") for key in flat):
        return from_released(flat, name)
    if any(key.startswith("flow.") for key in flat):
        unused = {key.removeprefix(UNUSED_PREFIX): flat[key] for key in flat if key.startswith(UNUSED_PREFIX)}
        weights = {key: value for key, value in flat.items() if not key.startswith(UNUSED_PREFIX)}
        if "settings.one_sided_noise" not in weights:
            logger.warning(
                f"{name} is older than version 0.3 and does not say whether its noise was centred; that is assumed. If "
                "it was trained with noise: uniform, its images are half a level too bright; `srflow convert IN OUT "
                "--one-sided-noise 256` writes that down (256: its noise_levels)"
            )
        # A checkpoint older than a setting has none; the network then was as the released ones are.
        weights = {**setting_buffers(**OLDEST_SETTINGS), **weights}
        return weights, unused or _unused(state, name)
    if any(key.startswith(("body.", "RRDB_trunk.", "model.")) for key in flat):
        raise UserError(f"{name} holds an RRDB network, not SRFlow: give it as path.pretrain_network_encoder")
    raise UserError(f"{name} holds no SRFlow network; its first key is {next(iter(flat), 'missing')!r}")


def _unused(state: Mapping[str, Any], name: str) -> Weights:
    """Find what :func:`convert` has put beside the weights of a released file."""
    unused = state.get("unused", {})
    if not isinstance(unused, Mapping) or not all(isinstance(value, Tensor) for value in unused.values()):
        raise UserError(f"{name} is damaged: what it has as unused is no weights")
    return dict(unused)


def encoder_weights(state: Mapping[str, Any], param_key: str = "params", name: str = "the checkpoint") -> Weights:
    """Find the weights of an RRDBNet of BasicSR or ESRGAN, under our encoder's names; its image output is left out.

    An x4 RRDBNet has what the encoders of SRFlow x4 and x8 read. It adds its trunk to the output of conv_first: build
    the SRFlowNet with ``encoder_skip="conv_first"``.
    """
    weights = {}
    for key, value in _current_names(flat_weights(state, param_key, name)).items():
        key = re.sub(r"^RRDB_trunk\.(\d+)\.RDB", r"body.\1.rdb", key)
        key = re.sub(r"^trunk_conv\.", "conv_body.", key)
        key = re.sub(r"^(?:conv_up|upconv)(\d+)\.", lambda match: f"upconvs.{int(match[1]) - 1}.", key)
        if re.match(r"(conv_first|body|conv_body|upconvs)\.", key):
            weights[key] = value
    if "conv_first.weight" not in weights:
        raise UserError(f"{name} holds no RRDB network; its first key is {next(iter(state), 'missing')!r}")
    return weights


def _current_names(weights: Weights) -> Weights:
    """Name the weights of ESRGAN's first layout, whose keys count layers, as BasicSR does."""
    if "model.1.sub.0.RDB1.conv1.0.weight" not in weights:
        return weights
    layers = sorted({int(match[1]) for key in weights if (match := re.match(r"model\.(\d+)\.weight$", key))})
    names = {"0": "conv_first"}
    names.update({str(layer): f"upconv{number}" for number, layer in enumerate(layers[1:-2], start=1)})
    renamed = {}
    for key, value in weights.items():
        key = re.sub(r"^model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.", r"body.\1.rdb\2.conv\3.", key)
        key = re.sub(r"^model\.1\.sub\.\d+\.(weight|bias)$", r"conv_body.\1", key)
        key = re.sub(r"^model\.(\d+)\.", lambda match: names.get(match[1], "output") + ".", key)
        renamed[key] = value
    return renamed


def _unwrapped(state: Any, param_key: str) -> Any:
    """Take off what training programs put around weights: dictionaries with other things beside, and prefixes."""
    for _ in range(MOST_WRAPPINGS):
        if not isinstance(state, Mapping):
            break
        inner = (state.get(key) for key in (param_key, *WRAPPINGS))
        wrapped = next((value for value in inner if isinstance(value, Mapping) and value), None)
        if wrapped is None:
            break
        state = wrapped
    if isinstance(state, Mapping):
        for prefix in PREFIXES:
            if state and all(str(key).startswith(prefix) for key in state):
                state = {key[len(prefix) :]: value for key, value in state.items()}
    return state


def flat_weights(state: Mapping[str, Any], param_key: str, name: str) -> Weights:
    """Find a checkpoint's weights, without what is wrapped around them, in floating point.

    Raises:
        UserError: there are none, or they are not finite.
    """
    flat = _unwrapped(state, param_key)
    if not isinstance(flat, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in flat.items()
    ):
        if state.keys() >= TRAINING_STATE:
            raise UserError(f"{name} is a training state: give its network, a file of the folder models beside it")
        raise UserError(f"{name} holds no weights; it has {', '.join(map(repr, list(state)[:5])) or 'nothing'}")
    odd = next((key for key in flat if not key.isprintable() or len(key) > LONGEST_NAME), None)
    if odd is not None:
        raise UserError(f"{name} holds no weights that can be used: {odd[:40]!r} is no name of any")
    # Of other networks a parameter may be called scale, too.
    scales = {key + SCALE_SUFFIX for key, value in flat.items() if value.dtype == torch.int8} & flat.keys()
    weights = {
        key: _scaled(key, value, flat[key + SCALE_SUFFIX], name) if key + SCALE_SUFFIX in scales else value
        for key, value in flat.items()
        if key not in scales
    }
    check_finite(weights, name)
    return weights


def _scaled(key: str, value: Tensor, scale: Tensor, name: str) -> Tensor:
    """Multiply what is stored in eight bits with its scale, which is no larger."""
    is_fit = scale.ndim in (0, value.ndim) and all(
        own in (1, length) for own, length in zip(scale.shape, value.shape, strict=False)
    )
    if not (is_fit and scale.is_floating_point() and scale.layout == value.layout == torch.strided):
        raise UserError(f"{name} is damaged: {key}{SCALE_SUFFIX} is {list(scale.shape)}, {key} {list(value.shape)}")
    return value * scale


def check_finite(weights: Weights, name: str) -> None:
    """Refuse weights of which some are infinite or no numbers, in the float32 that networks compute in."""
    for key, value in weights.items():
        if value.layout != torch.strided or value.is_complex() or value.is_quantized:
            kind = value.dtype if value.layout == torch.strided else value.layout
            raise UserError(f"{name} holds no weights that can be used: {key} is {kind}")
        if value.is_floating_point() and not value.is_meta and not value.float().isfinite().all():
            bad = int((~value.float().isfinite()).sum())
            raise UserError(
                f"{name} holds weights that are not finite: {key} has {bad} of {value.numel()}; it is damaged, or of a "
                "training that diverged: take an earlier checkpoint"
            )
