"""Hyperparameters that the shapes of the weights cannot tell, kept with the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Settings(nn.Module):
    """Numbers that a network was built with, as buffers, so that a checkpoint carries them.

    Loading weights into a network with other settings, which would compute something else, fails as a wrong shape does.
    """

    def __init__(self, **values: float | Sequence[int]) -> None:
        super().__init__()
        for name, value in values.items():
            dtype = torch.float64 if isinstance(value, float) else torch.int64
            # On the CPU even in a network that is built on the meta device: the values are what counts.
            self.register_buffer(name, torch.tensor(value, dtype=dtype, device="cpu"))

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, local_metadata: Any, strict: bool, *args: Any
    ) -> None:
        error_messages: list[str] = args[-1]
        for name, own in self.named_buffers():
            loaded = state_dict.get(prefix + name)
            if loaded is not None and not _same(own, loaded):
                error_messages.append(
                    f"{name} is {loaded.tolist()} in the checkpoint and {own.tolist()} in the network"
                )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *args)


def _same(own: Tensor, loaded: Tensor) -> bool:
    return own.shape == loaded.shape and torch.allclose(own.double().cpu(), loaded.double().cpu(), rtol=1e-6, atol=0)
