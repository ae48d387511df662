"""Hyperparameters that the shapes of the weights cannot tell, kept with the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from srflow_plugin.errors import UserError

Value = float | str | tuple[int, ...] | None


class Settings(nn.Module):
    """Values that a network was built with, as buffers, so that a checkpoint carries them.

    Loading weights into a network with other settings, which would compute something else, fails as a wrong shape does.
    """

    def __init__(self, **values: Value) -> None:
        super().__init__()
        for name, value in values.items():
            self.register_buffer(name, encode_setting(value))

    def differences(self, state: Mapping[str, Tensor], prefix: str) -> list[str]:
        """List the settings that a state dict has otherwise, one sentence each; one that it lacks is no difference."""
        pairs = {name: (decode_setting(own), state.get(prefix + name)) for name, own in self.named_buffers()}
        return [
            f"{name} is {decode_setting(loaded)} in the checkpoint and {own} in the network"
            for name, (own, loaded) in pairs.items()
            if loaded is not None and decode_setting(loaded) != own
        ]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Settings:
        try:
            return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]
        except TypeError:  # of devices without float64, as Apple's GPUs
            for name, value in self.named_buffers():
                setattr(self, name, value.float() if value.is_floating_point() else value)
            return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, local_metadata: Any, strict: bool, *args: Any
    ) -> None:
        error_messages: list[str] = args[-1]
        differences = self.differences(state_dict, prefix)
        error_messages += differences
        if not differences:
            super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *args)


def encode_setting(value: Value) -> Tensor:
    """Turn a setting into a tensor; on the CPU also in a network without memory, since the value is what counts."""
    if isinstance(value, str):
        return torch.tensor(list(value.encode()), dtype=torch.uint8, device="cpu")
    if value is None:
        value = 0.0  # which no setting is otherwise
    return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else torch.int64, device="cpu")


def decode_setting(tensor: Tensor) -> Value:
    """Read a setting back that :func:`encode_setting` made a tensor of.

    Raises:
        UserError: it made no such tensor.
    """
    is_setting = tensor.ndim == (0 if tensor.is_floating_point() else 1) and tensor.layout == torch.strided
    is_setting = is_setting and tensor.dtype != torch.bool and not tensor.is_complex()
    try:
        value = tensor.tolist() if is_setting else None
    except NotImplementedError:  # without memory, and so without a value
        value = None
    if value is None:
        raise UserError(f"a setting is a tensor {list(tensor.shape)} of {tensor.dtype}, which none can be")
    if tensor.dtype == torch.uint8:
        return bytes(value).decode(errors="replace")
    if not tensor.is_floating_point():
        return tuple(value)
    # A network turned to float32 has rounded its settings.
    return float(f"{value:.6g}") or None
