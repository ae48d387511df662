"""The device to work on, chosen once for every command and function."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from srflow_plugin.errors import UserError
from srflow_plugin.progress import tell
from srflow_plugin.shares import this_process

ANSWERS_NOT = (RuntimeError, AssertionError, AttributeError, NotImplementedError, TypeError, ImportError)


def choose_device(name: str = "auto") -> torch.device:
    """Find a device by name: "auto" is an accelerator if there is one; else torch's names: "cpu", "cuda:1", "mps", ...

    Of several processes that a launcher has started, "auto" gives each an accelerator of its own, as far as there are.
    One that is there and does not work is passed over for the CPU, which is said.

    >>> choose_device("cpu")
    device(type='cpu')

    Raises:
        UserError: torch cannot use such a device on this machine; with those that it can.
    """
    if name == "auto":
        return _automatic()
    try:
        device = torch.device(name.strip().lower())
    except (RuntimeError, TypeError):
        raise UserError(f"device {name!r} is not known; use {_usable()}") from None
    fault = fault_of(device)
    if fault is not None:
        raise UserError(f"device {name} cannot be used here: {fault}; use {_usable(but=device)}")
    return device


def accelerators() -> list[torch.device]:
    """List the accelerators that torch finds on this machine; all are of one kind."""
    try:
        if hasattr(torch, "accelerator"):
            kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
            count = torch.accelerator.device_count() if kind else 0
        else:  # of older versions of torch
            kind = torch.device("cuda") if torch.cuda.is_available() else None
            count = torch.cuda.device_count()
    except ANSWERS_NOT:
        return []
    return [torch.device(kind.type, index) for index in range(count)] if kind else []


def synchronize() -> None:
    """Wait for what the accelerator has been asked to do, if there is one."""
    if accelerators():
        torch.accelerator.synchronize() if hasattr(torch, "accelerator") else torch.cuda.synchronize()


def sent(x: Tensor, like: Tensor) -> Tensor:
    """Copy to the device and type of ``like``; CUDA does so after what it has been asked for, and is not waited for."""
    return x.to(like, non_blocking=like.is_cuda)


@cache
def fault_of(device: torch.device) -> str | None:
    """Say in a line why a device cannot be used, after trying a small convolution there; None: it can."""
    try:
        ones = torch.ones(1, 1, 3, 3, device=device)
        return None if F.conv2d(ones, ones).item() == ones.numel() else "it computes wrong numbers"
    except ANSWERS_NOT as error:
        return _first_sentence(str(error)) or type(error).__name__


def _first_sentence(text: str) -> str:
    """Shorten torch's paragraphs of advice to what they begin with."""
    if "is only available for these backends" in text:
        return "this PyTorch is built without it"
    return re.split(r"\.\s|\n", text.strip())[0].strip().rstrip(".")


def _automatic() -> torch.device:
    """Choose the accelerator of this process, or the CPU."""
    found = accelerators()
    if not found:
        return torch.device("cpu")
    here = this_process()
    device = found[here.local_rank % len(found)] if here.size > 1 else torch.device(found[0].type)
    fault = fault_of(device)
    if fault is None:
        return device
    _say_once(f"{device} is there and does not work ({fault}): the CPU is used")
    return torch.device("cpu")


@cache
def _say_once(line: str) -> None:
    tell(line)


def _usable(but: torch.device | None = None) -> str:
    """Name the devices that can be used."""

    def names() -> Iterator[str]:
        yield from ("auto", "cpu")
        found = accelerators()
        for device in found:
            if but not in (device, torch.device(device.type)) and fault_of(device) is None:
                yield str(device) if len(found) > 1 else device.type

    *others, last = names()
    return f"{', '.join(others)} or {last}"
