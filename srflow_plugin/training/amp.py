"""Mixed precision for any model of BasicSR: its networks in bfloat16 or float16, everything else in float32.

Autocast is around each network's forward pass and nowhere else. What a network gives is float32 again, so that losses,
penalties, metrics, pictures and the mean of the weights over iterations are computed as ever; weights stay float32.

The smallest number of float16 is 6e-8, and many a gradient is smaller. So every loss is multiplied before its backward
pass, and the gradients are divided before a step, by PyTorch's GradScaler. One serves all losses and optimisers of a
model: its factor changes between two iterations only. bfloat16 has the range of float32 and needs none of this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from basicsr.models.base_model import BaseModel
from basicsr.ops.dcn import DeformConv, ModulatedDeformConv
from basicsr.utils import get_root_logger
from torch import Tensor, nn

from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.errors import TrainingError, UserError
from srflow_plugin.flow.precision import without_autocast

FLOAT32_LAYERS = (DeformConv, ModulatedDeformConv)
TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
CLIPPERS = ("clip_grad_norm_", "clip_grad_value_")  # of torch.nn.utils
SMALLEST_SCALE = 2.0**-24  # forty steps in a row whose gradients are not finite
SCALE, GROWTH = "scale", "_growth_tracker"  # what changes of a GradScaler's state


class InAutocast:
    """Part of a network whose forward pass is in autocast; takes and gives float32."""

    autocast: tuple[str, torch.dtype]  # kind of device, type

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the network's own."""
        with torch.autocast(*self.autocast):
            return to_float32(super().forward(*args, **kwargs))  # type: ignore[misc]


class OutOfAutocast:
    """Part of a layer that knows float32 only."""

    def forward(self, *args: Any) -> Any:
        """Call the layer's own."""
        with without_autocast():
            return super().forward(*to_float32(args))  # type: ignore[misc]


def to_float32(output: Any) -> Any:
    """Turn what a network gives into float32: a tensor, or tuples, lists and dictionaries of some.

    >>> [value.dtype for value in to_float32([torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.int8)])]
    [torch.float32, torch.int8]
    """
    if isinstance(output, Tensor):
        return output.float() if output.dtype in TYPES.values() else output
    if isinstance(output, dict):
        return type(output)((key, to_float32(value)) for key, value in output.items())
    if isinstance(output, list | tuple):
        parts = [to_float32(part) for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    return output


def lower_precision(model: BaseModel, amp: str | None) -> None:
    """Let a model's networks work in ``amp``: bfloat16, float16; none or None leaves them as they are.

    SRFlowNet knows by itself which of its parts may.

    Raises:
        UserError: the GPU knows no bfloat16.
    """
    if amp not in TYPES:
        return
    if model.device.type == "cuda" and amp == "bfloat16" and not torch.cuda.is_bf16_supported():
        raise UserError("amp: this GPU has no bfloat16; set float16")
    for name, wrapped in vars(model).items():
        if not name.startswith("net_") or not isinstance(wrapped, nn.Module):
            continue
        net: Any = model.get_bare_model(wrapped)
        if isinstance(net, SRFlowNet):
            if amp == "float16":
                raise UserError("amp: float16 is not for SRFlowNet; use bfloat16")
            net.precision = "bfloat16"
        else:
            for layer in net.modules():
                if isinstance(layer, FLOAT32_LAYERS):
                    _become(layer, OutOfAutocast)
            _become(net, InAutocast)
            net.autocast = (model.device.type, TYPES[amp])


def _become(module: nn.Module, part: type) -> None:
    """Put a part before a module's class, not into the object: DataParallel works on copies of that."""
    kind = type(module)
    module.__class__ = type(kind.__name__, (part, kind), {"__module__": kind.__module__})


class MixedPrecision:
    """Mixed precision of a training.

    Args:
        model: whose networks and optimisers it is.
        amp: bfloat16, float16, or none.
    """

    def __init__(self, model: BaseModel, amp: str | None) -> None:
        lower_precision(model, amp)
        self.model = model
        self.optimizers = model.optimizers
        self.scaler = torch.amp.GradScaler(model.device.type) if amp == "float16" else None
        self._has_scaled = False  # in this iteration
        self._unscaled: set[int] = set()  # optimisers whose gradients have been divided, in this iteration
        if self.scaler is not None:
            for optimizer in model.optimizers:
                optimizer.step = self._through_scaler(optimizer, self.scaler)

    @contextmanager
    def step(self, iteration: int) -> Iterator[None]:
        """Scale the losses and unscale the gradients of a step of the model, which is taken in this scope.

        Where gradients are not finite, the optimiser's step is skipped, and the factor becomes smaller.
        """
        if self.scaler is None:
            yield
            return
        with ExitStack() as stack:
            stack.enter_context(_replaced(Tensor, "backward", self._of_scaled(self.scaler)))
            for name in CLIPPERS:
                clipper = self._of_unscaled(getattr(nn.utils, name), self.scaler)
                stack.enter_context(_replaced(nn.utils, name, clipper))
            yield
        if self._unscaled:
            self._update(iteration, self.scaler)
        self._has_scaled = False
        self._unscaled.clear()

    def state(self) -> dict[str, dict[str, float]]:
        """Make the part of a training state that is the factor's; empty where there is none."""
        if self.scaler is None:
            return {}
        state = self.scaler.state_dict()
        return {"amp": {SCALE: float(state[SCALE]), GROWTH: int(state[GROWTH])}}

    def resume(self, state: Any) -> None:
        """Take up the "amp" of a training state; a training that had none begins with the usual factor.

        Raises:
            UserError: it is none.
        """
        if state is None or self.scaler is None:
            return
        scale, steps = state.get(SCALE), state.get(GROWTH)
        if type(scale) is not float or not 0 < scale < math.inf or type(steps) is not int or steps < 0:
            raise UserError(f"path.resume_state: its factor of float16's losses is {state!s:.60}")
        self.scaler.load_state_dict({**self.scaler.state_dict(), SCALE: scale, GROWTH: steps})

    def _of_scaled(self, scaler: torch.amp.GradScaler) -> Callable[..., None]:
        """Make Tensor.backward of a loss that is scaled first."""

        # Not by calling Tensor's own, which modes such as cuda_names.OnCPU would look up here again.
        def backward(
            loss: Tensor,
            gradient: Tensor | None = None,
            retain_graph: bool | None = None,
            create_graph: bool = False,
            inputs: Any = None,
        ) -> None:
            self._has_scaled = True
            torch.autograd.backward(scaler.scale(loss), gradient, retain_graph, create_graph, inputs=inputs)

        return backward

    def _through_scaler(self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> Callable[..., Any]:
        """Make an optimiser's step that its scaler takes, or leaves out."""
        own_step = optimizer.step

        def step() -> Any:
            if not any(parameter.grad is not None for parameter in parameters_of(optimizer)):
                return own_step()
            if not self._has_scaled:
                raise TrainingError("train.amp: float16 is for models that call their losses' backward(); use bfloat16")
            self._unscaled.add(id(optimizer))
            scaled_step = optimizer.step
            optimizer.step = own_step  # type: ignore[method-assign]
            try:
                return scaler.step(optimizer)
            finally:
                optimizer.step = scaled_step  # type: ignore[method-assign]

        return step

    def _of_unscaled(self, clipper: Callable[..., Any], scaler: torch.amp.GradScaler) -> Callable[..., Any]:
        """Make a function of torch.nn.utils that clips gradients, once these are divided."""

        def clip(parameters: Any, *args: Any, **kwargs: Any) -> Any:
            parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
            clipped = {id(parameter) for parameter in parameters if parameter.grad is not None}
            for optimizer in self.optimizers:
                if id(optimizer) not in self._unscaled and clipped & set(map(id, parameters_of(optimizer))):
                    self._unscaled.add(id(optimizer))
                    scaler.unscale_(optimizer)
            return clipper(parameters, *args, **kwargs)

        return clip

    def _update(self, iteration: int, scaler: torch.amp.GradScaler) -> None:
        """Let the factor follow: up after many steps, down after one whose gradients are not finite, which is said.

        Raises:
            TrainingError: no factor is small enough.
        """
        before = scaler.get_scale()
        scaler.update()
        scale = scaler.get_scale()
        if scale < before:
            get_root_logger().warning(
                f"Iteration {iteration}: gradients are not finite in float16; the step is skipped. "
                f"Losses are multiplied by {scale:g} from here on, not {before:g}."
            )
            self._check_buffers(iteration)
        if scale < SMALLEST_SCALE:
            raise TrainingError(
                f"train.amp: float16: the gradients up to iteration {iteration} are not finite, however small the "
                "losses are made. Go on from a checkpoint with bfloat16, without amp, or with a lower learning rate"
            )

    def _check_buffers(self, iteration: int) -> None:
        """Refuse to go on where the forward pass itself was beyond float16, and batch norms have taken its mean."""
        nets = {name: net for name, net in vars(self.model).items() if name.startswith("net_")}
        for name, net in nets.items():
            if isinstance(net, nn.Module) and not all(bool(buffer.isfinite().all()) for buffer in net.buffers()):
                raise TrainingError(
                    f"train.amp: float16: what {name} computes is beyond its range (iteration {iteration}); begin "
                    "again, or go on from an earlier checkpoint, with bfloat16 or without amp"
                )


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """List all parameters of an optimiser."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Have an attribute replaced in this scope."""
    own = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, own)
