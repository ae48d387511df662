"""Functions compiled by PyTorch, which fuses all between two convolutions into one pass over memory.

A program is made for each kind of input (channels, precision, with or without gradients; sizes are free) when the first
comes, which takes seconds. PyTorch keeps it on the disk, and the next run reads it from there.
"""

from __future__ import annotations

import functools
import types
import zlib
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
FREE = (0, 2, 3)  # dimensions of images that a program leaves open


def check_compiler() -> None:
    """Look for the compiler that PyTorch uses.

    Raises:
        ValueError: there is none, with what to do.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler  # here, since it imports the compiler's two seconds
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise ValueError(
            "compile needs a C++ compiler, and there is none: install one (apt-get install g++), name it in the "
            "environment variable CXX, or leave compile out"
        ) from None


def compiled(function: Callable[..., T], weights: Any, *images: Tensor) -> T:
    """Call ``function(weights, *images)`` as a compiled program: the same numbers, up to rounding.

    Args:
        function: one at the top of a module.
        weights: a module, or tensors in named tuples.
        images: (B, C, h, w) each.
    """
    if torch.compiler.is_compiling():
        return function(weights, *images)
    images = tuple(image.contiguous(memory_format=torch.channels_last) for image in images)
    kinds = [(image.shape[1], min(len(image), 2), image.dtype, image.device, image.requires_grad) for image in images]
    for image in images:
        for dimension in FREE:
            if image.shape[dimension] > 1:
                torch._dynamo.maybe_mark_dynamic(image, dimension)
    shapes = tuple(tuple(tensor.shape) for tensor in _tensors(weights))
    program: Callable[..., T] = _program(function, torch.is_grad_enabled(), shapes, *kinds)
    return program(weights, *images)


def _tensors(weights: Any) -> Iterable[Tensor]:
    if isinstance(weights, nn.Module):
        return weights.parameters()
    if isinstance(weights, tuple | list):
        return [tensor for part in weights for tensor in _tensors(part)]
    return [weights] if isinstance(weights, Tensor) else []


@functools.cache
def _program(function: Callable[..., T], *kind: Hashable) -> Callable[..., T]:
    """Make the program of a kind of input, from a copy of the function with a name of its own.

    PyTorch makes no more than eight programs of one function, and opens all sizes in which its calls differ: here would
    be those of the weights among them.
    """
    name = f"{function.__name__}_{zlib.crc32(repr(kind).encode()):x}"
    code = function.__code__.replace(co_name=name)
    own = types.FunctionType(code, function.__globals__, name, function.__defaults__, function.__closure__)
    return torch.compile(own)
