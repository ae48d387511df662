"""BasicSR's models on a machine without CUDA: where their code names the device, it means the run's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from srflow_plugin.options.schema import SRFLOW_MODELS


class OnCPU(TorchFunctionMode):
    """Mode in which ``.cuda()`` and ``device="cuda"`` mean the CPU, and a view is taken of any layout.

    >>> with OnCPU():
    ...     torch.zeros(1, device="cuda").cuda().device
    device(type='cpu')
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if function is Tensor.cuda:
            return args[0]
        named = dict(kwargs or {})
        if _is_cuda(named.get("device")):
            named["device"] = "cpu"
        if function is Tensor.view and _is_layout(args):
            function = Tensor.reshape  # padding keeps the layout on the CPU, and makes it contiguous on CUDA
        result = function(*("cpu" if _is_cuda(value) else value for value in args), **named)
        # Of another device it would be a copy, whose shape stays when the original's is changed in place.
        return result.view_as(result) if function is Tensor.to and result is args[0] else result


def _is_layout(args: Sequence[Any]) -> bool:
    """Say whether the view of a tensor that is asked for is of other sizes, not of another type."""
    return not any(isinstance(argument, torch.dtype) for argument in args[1:])


def _is_cuda(value: Any) -> bool:
    return isinstance(value, str | torch.device) and str(value).partition(":")[0] == "cuda"


def of_this_machine(opt: dict[str, Any]) -> AbstractContextManager[Any]:
    """Make the context in which a run's model works."""
    needs_help = opt["num_gpu"] == 0 and opt["model_type"] not in SRFLOW_MODELS
    return OnCPU() if needs_help else nullcontext()
