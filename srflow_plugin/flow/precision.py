"""Convolutions in full float32, whatever PyTorch is told for the rest of the program.

On NVIDIA's GPUs PyTorch computes float32 convolutions in TF32 unless told otherwise: products of 10 bits. In a scope of
autocast it computes them in bfloat16 or float16, on any device. Most networks do not notice. A flow does: what one
direction has rounded, the other does not undo.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

COMPLETE = ("cpu", "cuda", "meta")  # kinds of devices with float64 and all of linear algebra
AUTOCAST = ("cpu", "cuda", "mps", "xpu")  # kinds of devices with an autocast of their own
_lock = threading.Lock()
_inside = 0  # scopes that are open, in all threads
_restore: list[Callable[[], None]] = []


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute float32 convolutions in float32 in this scope; it may be nested and be open in several threads.

    An autocast scope around it is left. Of the settings, a graph that is being compiled or exported keeps those of the
    program that runs it.
    """
    global _inside
    if torch.compiler.is_compiling():
        with without_autocast():
            yield
        return
    with _lock:
        if not _inside:
            _restore.extend((_exact_cudnn(), _exact_mkldnn()))
        _inside += 1
    try:
        with without_autocast():
            yield
    finally:
        with _lock:
            _inside -= 1
            while not _inside and _restore:
                _restore.pop()()


@contextmanager
def without_autocast() -> Iterator[None]:
    """Leave, in this scope, the autocast scopes around it."""
    with ExitStack() as stack:
        for kind in AUTOCAST:
            if autocast_type(kind) is not None:
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def autocast_type(kind: str) -> torch.dtype | None:
    """Find the type that convolutions are computed in on a kind of devices: autocast's; None: no such scope is open."""
    if hasattr(torch, "get_autocast_dtype"):
        is_open = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        return torch.get_autocast_dtype(kind) if is_open else None
    older: dict[str, Any] = {  # of PyTorch before 2.4
        "cpu": (torch.is_autocast_cpu_enabled, torch.get_autocast_cpu_dtype),
        "cuda": (torch.is_autocast_enabled, torch.get_autocast_gpu_dtype),
    }
    is_enabled, find_type = older.get(kind, (bool, None))
    return find_type() if is_enabled() else None


def _exact_cudnn() -> Callable[[], None]:
    """Turn TF32 off for convolutions on GPUs; return what turns it back."""
    cudnn: Any = torch.backends.cudnn
    try:
        was = cudnn.allow_tf32
    except RuntimeError:  # the program uses PyTorch's newer setting, which cannot be mixed with this one
        return _exact_operator(cudnn.conv)
    cudnn.allow_tf32 = False
    return lambda: setattr(cudnn, "allow_tf32", was)


def _exact_mkldnn() -> Callable[[], None]:
    """Turn bfloat16 off for float32 convolutions on CPUs; older versions of PyTorch have no such thing."""
    conv = getattr(torch.backends.mkldnn, "conv", None)
    return _exact_operator(conv) if hasattr(conv, "fp32_precision") else lambda: None


def _exact_operator(operator: Any) -> Callable[[], None]:
    was = operator.fp32_precision
    operator.fp32_precision = "ieee"
    return lambda: setattr(operator, "fp32_precision", was)


def to_complete(x: torch.Tensor) -> torch.Tensor:
    """Move what needs float64 or linear algebra to the CPU from devices that lack these, as Apple's GPUs do.

    >>> to_complete(torch.ones(1)).double()
    tensor([1.], dtype=torch.float64)
    """
    return x if x.device.type in COMPLETE else x.cpu()
