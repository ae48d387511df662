"""Convolutions on CPUs with what follows them done in the same pass over memory, by oneDNN.

PyTorch's own compiler makes the same calls. In bfloat16 they save a tenth to a quarter of a sample's time; in float32,
where oneDNN computes longer, nothing.
"""

from __future__ import annotations

import functools
from typing import cast

import torch
from torch import Tensor

ONE = [1, 1]


def is_fused(x: Tensor) -> bool:
    """Decide whether :func:`conv_relu` can stand for a convolution of ``x``; it has no gradient."""
    is_on_cpu = x.dtype == torch.bfloat16 and x.device.type == "cpu"
    return is_on_cpu and not torch.is_grad_enabled() and not torch.compiler.is_compiling() and is_there()


@functools.cache
def is_there() -> bool:
    """Look once: builds of PyTorch without oneDNN lack it, and so do processors that it has no bfloat16 for."""
    try:
        operators = torch.ops.mkldnn._convolution_pointwise.default, torch.ops.mkldnn._convolution_pointwise.binary
        return all(map(callable, operators)) and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False


def conv_relu(x: Tensor, weight: Tensor, bias: Tensor | None, added: Tensor | None = None) -> Tensor:
    """Compute ``relu(conv(x) + added)`` with zero padding that keeps the size.

    Args:
        x: (n * B, C, h, w).
        weight: (O, C, k, k), k odd.
        bias: (O,).
        added: (B, O, h, w), shared by n images each.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    padding = [weight.shape[-1] // 2] * 2
    if added is None:
        conv = torch.ops.mkldnn._convolution_pointwise.default
        return cast(Tensor, conv(x, weight, bias, padding, ONE, ONE, 1, "relu", [], ""))
    added = added.expand(len(x) // len(added), *added.shape).flatten(0, 1)
    conv = torch.ops.mkldnn._convolution_pointwise.binary
    return cast(Tensor, conv(x, added, weight, bias, padding, ONE, ONE, 1, "add", 1.0, "relu", [], ""))
