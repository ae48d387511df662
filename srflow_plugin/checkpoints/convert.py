"""Checkpoints written in another format, or in less space."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from srflow_plugin.checkpoints.fit import Weights, setting_buffers
from srflow_plugin.checkpoints.load import (
    SCALE_SUFFIX,
    UNUSED_PREFIX,
    check_finite,
    network_of,
    read_checkpoint,
    weights_and_unused,
)
from srflow_plugin.checkpoints.released import to_released
from srflow_plugin.checkpoints.sealed import sealed
from srflow_plugin.files import check_new_file, complete_or_absent, save_atomically

CONVOLUTION_NDIM = 4
Storage = Literal["float32", "half", "compact"]


def convert(
    source: Path,
    target: Path,
    released: bool = False,
    storage: Storage = "float32",
    param_key: str = "params_ema",
    overwrite: bool = False,
    one_sided_noise: int | None = None,
) -> None:
    """Write a checkpoint in another format: ours (``.pth``), ``.safetensors``, or with ``released`` the released one.

    What SRFlow does not use of a released file goes along, so that the way back gives the same bits. ``storage`` is as
    in :func:`stored`, ``param_key`` as in :func:`load_network`. ``one_sided_noise`` is written into the settings, which
    checkpoints older than version 0.3 do not have. The target appears when complete, or not at all.
    """
    check_new_file(target, overwrite)
    weights, unused = weights_and_unused(read_checkpoint(source), param_key, str(source))
    network_of(weights, str(source))  # what is not whole is not passed on
    if one_sided_noise is not None:
        weights |= setting_buffers(one_sided_noise=float(one_sided_noise))
    weights = stored(weights, storage)
    check_finite(weights, f"{source} as {storage}")
    state: dict[str, Any] = {**weights, **{UNUSED_PREFIX + key: value for key, value in unused.items()}}
    if released:
        state = to_released(weights, unused)
    elif target.suffix != ".safetensors":
        state = {"params": weights, **({"unused": unused} if unused else {})}
    if target.suffix != ".safetensors":
        save_atomically(state, target, replacing=overwrite)
        return
    with complete_or_absent(target, replacing=overwrite) as unfinished:
        unfinished.write_bytes(sealed(state))


def stored(weights: Weights, storage: Storage) -> Weights:
    """Weights in less space: "half" has matrices and convolutions in float16, "compact" the RRDBs' convolutions in int8
    moreover, with a scale for each output channel. :func:`flat_weights` reads them; networks work in float32.

    The encoder's few other convolutions carry the brightness of an image, which int8 moves by a grey level.
    """
    result = {}
    for key, value in weights.items():
        if storage == "compact" and value.ndim == CONVOLUTION_NDIM and key.startswith("encoder.body."):
            scale = value.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
            result[key], result[key + SCALE_SUFFIX] = (value / scale).round().to(torch.int8), scale
        else:
            is_large = storage != "float32" and value.ndim > 1 and value.is_floating_point()
            result[key] = value.half() if is_large else value
    return result
