"""The device to work on, chosen once for every command and function."""

from __future__ import annotations

import torch

from srflow_plugin.errors import UserError
from srflow_plugin.shares import this_process


def choose_device(name: str = "auto") -> torch.device:
    """Find a device by name: "auto" is a GPU if there is one; else torch's names, such as "cpu", "cuda", "cuda:1".

    Of several processes that a launcher has started, "auto" gives each a GPU of its own, as far as there are.

    >>> choose_device("cpu")
    device(type='cpu')

    Raises:
        UserError: torch cannot use such a device on this machine.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        here = this_process()
        return (
            torch.device("cuda", here.local_rank % torch.cuda.device_count()) if here.size > 1 else torch.device("cuda")
        )
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type == "meta":  # which holds no numbers
        raise UserError(f"device {name!r} is not known; use auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {name}: this machine has no GPU that torch can use; use cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device {name}: this machine has {torch.cuda.device_count()} GPUs, counted from cuda:0")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UserError(f"device {name}: torch cannot use it on this machine; use cpu") from None
    return device
