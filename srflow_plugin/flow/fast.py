"""The plan: the numbers of MultiScaleFlow's ``forward`` and ``inverse``, for a fraction of their time and memory.

The definition is in :mod:`multiscale` and the layers; tests/flow/test_fast.py holds the two together. The ways here:

- What a step computes of the LR image alone (its injector's network, the features' part of its coupling's first
  convolution) is one convolution, done once for all samples: a convolution is linear in its input channels.
- Features that are coarser than their level are never enlarged (:mod:`context`).
- Per-channel affine layers are folded into the convolutions before them, ActNorm and 1x1 convolution into one.
- The 1x1 convolutions' determinants and inverses are computed in one batch a level.
- Without gradients a step goes through the image in windows, so that its hidden layers stay in the processor's cache.
- With gradients, a large image's hidden layers are computed again in the backward pass; kept are only a step's input
  and its part of the LR image's convolution.
- What follows a convolution is done in the same pass over memory: on CPUs by oneDNN (:mod:`onednn`), and by a compiler
  where ``MultiScaleFlow.compiled`` asks for one (:mod:`compiled`).

Conditional networks work in the contexts' precision; the flow's own variable, scales and log-determinants keep theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from srflow_plugin.flow import onednn
from srflow_plugin.flow.bijection import Chain
from srflow_plugin.flow.compiled import compiled
from srflow_plugin.flow.context import Context
from srflow_plugin.flow.coupling import ConditionalNet, Scale
from srflow_plugin.flow.density import Encoding
from srflow_plugin.flow.layers import ChannelAffine, ZeroConv2d
from srflow_plugin.flow.multiscale import FlowStep, MultiScaleFlow, TransitionStep
from srflow_plugin.flow.precision import full_precision, to_complete
from srflow_plugin.flow.windows import Window, cut, windows

T = TypeVar("T")

KEPT_BYTES = 2**28  # of hidden layers in training, up to which computing them again is not worth its time
KEPT_LAYERS = 6  # of the hidden width: what a step keeps for the backward pass, about


def window_bytes(device: torch.device) -> int:
    """Size of one hidden layer in a window: where CPUs were fastest, and what a GPU has room for."""
    return 2**23 if device.type == "cpu" else 2**29


@full_precision()
def encode(flow: MultiScaleFlow, x: Tensor, contexts: Sequence[Context]) -> Encoding:
    """Compute ``flow.forward``: image (B, C, H, W) and contexts, finest first -> its :class:`Encoding`."""
    latents: list[Tensor] = []
    local: list[list[Tensor]] = []
    shared: list[Tensor] = []
    run = runner(flow, contexts)
    for index, (level, context) in enumerate(zip(flow.levels, contexts, strict=True)):
        x = F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        steps = level_steps(level)
        logdets = []
        for step in steps:
            x = F.conv2d(x, *mixing(step))
            if isinstance(step, FlowStep):
                x, logdet = apply_conditional(forward_with, run, step, x, context)
                logdets.append(logdet)
        if index < len(flow.splits):
            x, latent, logdet = flow.splits[index].by_position(x)
            logdets.append(logdet)
            latents.append(latent)
        local.append(logdets)
        shared.append(channel_logdet(steps))
    return Encoding([*latents, x], local, shared)


@full_precision()
def decode(flow: MultiScaleFlow, latents: Sequence[Tensor], contexts: Sequence[Context]) -> Tensor:
    """Compute ``flow.inverse`` without its log-det: latents (n * B, C, h, w), finest first -> images (n * B, C, H, W).

    ``contexts`` are of B images; the n samples of each share what is computed of them.
    """
    *split_latents, y = latents
    run = runner(flow, contexts)
    for index in reversed(range(len(flow.levels))):
        if index < len(flow.splits):
            y, _ = flow.splits[index].inverse(y, split_latents[index])
        y = y.contiguous(memory_format=torch.channels_last)
        steps = level_steps(flow.levels[index])
        unmixings = inverse_mixings(steps)
        for step, unmixing in zip(reversed(steps), reversed(unmixings), strict=True):
            if isinstance(step, FlowStep):
                (y,) = apply_conditional(inverse_with, run, step, y, contexts[index])
            y = F.conv2d(y, *unmixing)
        y = F.pixel_shuffle(y, 2)
    return y


def level_steps(level: Chain) -> list[TransitionStep]:
    """List the steps of a level, which follow its squeeze."""
    return [cast(TransitionStep, step) for step in level.bijections[1:]]


# -- one step ----------------------------------------------------------------------------------------------------------


class Convolution(NamedTuple):
    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2)

    def relu(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Compute ``relu(convolution(x) + added)``; n images of ``x`` share one of ``added``."""
        if onednn.is_fused(x):
            return onednn.conv_relu(x, self.weight, self.bias, added)
        output = self(x)
        if added is not None:
            output.unflatten(0, (-1, len(added))).add_(added)
        return output.relu_()


class NetWeights(NamedTuple):
    """Layers that follow the first ReLU of a conditional net."""

    hidden: list[Convolution]
    last: Convolution  # its outputs sorted: shifts, then raw scales
    scale: Scale

    def __call__(self, hidden: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(B, hidden, h, w) -> shift and scale, in ``dtype``."""
        for convolution in self.hidden:
            hidden = convolution.relu(hidden)
        shift, raw = self.last(hidden).to(dtype).chunk(2, dim=1)
        return shift, self.scale(raw)


class StepWeights(NamedTuple):
    """A step's networks with every affine layer folded in."""

    condition: Convolution  # all that reads the context: what goes into both nets' first ReLUs, (B, 2 * hidden, h, w)
    variable: Convolution  # what else goes into the coupling's: the part of the flow's own variable
    injector: NetWeights
    coupling: NetWeights


class Runner(NamedTuple):
    """Ways to run the functions of a step."""

    is_compiled: bool
    is_recomputed: bool  # in the backward pass

    def __call__(self, function: Callable[..., T], weights: StepWeights, *images: Tensor) -> T:
        return compiled(function, weights, *images) if self.is_compiled else function(weights, *images)


def runner(flow: MultiScaleFlow, contexts: Sequence[Context]) -> Runner:
    """Decide how the steps of a flow run."""
    layers = 0  # bytes of hidden layers
    for level, context in zip(flow.levels, contexts, strict=True):
        for step in level_steps(level):
            if isinstance(step, FlowStep):
                layers += hidden_channels(step) * context.own[:, 0].numel() * context.own.element_size()
    return Runner(flow.compiled, KEPT_LAYERS * layers > KEPT_BYTES)


def hidden_channels(step: FlowStep) -> int:
    """Look up the width of a step's networks."""
    return len(cast(nn.Conv2d, step.injector.net[0]).weight)


def apply_conditional(
    function: Callable[..., tuple[Tensor, ...]], run: Runner, step: FlowStep, x: Tensor, context: Context
) -> tuple[Tensor, ...]:
    """Call ``function`` with a step's weights, ``x`` (n * B, C, h, w), and the condition, which is computed here."""
    weights = fold(step, context.own.dtype)
    if torch.is_grad_enabled():
        condition = context.conv(*weights.condition)
        if run.is_recomputed:
            return recomputed(function, run, weights, x, condition)
        return function(run, weights, x, condition)
    outputs: list[Tensor] = []
    for window in step_windows(step, context):
        parts = function(run, weights, cut(x, window.outer), context.crop(*window.outer).conv(*weights.condition))
        if parts[0].shape[2:] == x.shape[2:]:
            return parts
        if not outputs:
            outputs = [part.new_empty(*part.shape[:2], *x.shape[2:]) for part in parts]
            outputs = [output.contiguous(memory_format=torch.channels_last) for output in outputs]
        for output, part in zip(outputs, parts, strict=True):
            cut(output, window.inner).copy_(cut(part, window.inner_in_outer))
    return tuple(outputs)


def recomputed(function: Callable[..., T], *arguments: object) -> T:
    """Call a function without randomness; its activations are computed again in the backward pass."""
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)


@full_precision()
def forward_with(run: Runner, weights: StepWeights, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
    """Apply injector and coupling: (B, C, h, w) -> the same shape, log-det of each position (B, 1, h, w)."""
    return run(inject_and_couple, weights, x, condition)


def inverse_with(run: Runner, weights: StepWeights, y: Tensor, condition: Tensor) -> tuple[Tensor]:
    """Undo :func:`forward_with` for n samples of each image: (n * B, C, h, w) -> the same shape."""
    shift, scale, of_coupling = run(injection, weights, condition)
    # Samples at once: as many as one window may have of one image.
    at_once = max(1, window_bytes(y.device) // (of_coupling.numel() * of_coupling.element_size()))
    parts = [
        run(uncouple_and_uninject, weights, part, shift, scale, of_coupling)
        for part in y.split(len(of_coupling) * at_once)
    ]
    return (parts[0] if len(parts) == 1 else torch.cat(parts),)


def inject_and_couple(weights: StepWeights, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
    """Compute :func:`forward_with`."""
    of_injector, of_coupling = condition.chunk(2, dim=1)
    shift, scale = weights.injector(F.relu(of_injector), x.dtype)
    x = (x + shift) * scale
    a, b = x.tensor_split([weights.variable.weight.shape[1]], dim=1)
    b_shift, b_scale = weights.coupling(coupling_hidden(weights, a, of_coupling), x.dtype)
    logdet = scale.log().sum(1, keepdim=True) + b_scale.log().sum(1, keepdim=True)
    return torch.cat([a, (b + b_shift) * b_scale], dim=1), logdet


def injection(weights: StepWeights, condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute what all samples share of a step: the injector's shift and scale, the coupling's part of the condition.

    The first two, (B, C, h, w), are in full precision.
    """
    of_injector, of_coupling = condition.chunk(2, dim=1)
    shift, scale = weights.injector(F.relu(of_injector), torch.promote_types(condition.dtype, torch.float32))
    return shift, scale, of_coupling.contiguous(memory_format=torch.channels_last)


def uncouple_and_uninject(weights: StepWeights, y: Tensor, shift: Tensor, scale: Tensor, of_coupling: Tensor) -> Tensor:
    """Undo the coupling, then the injector: (n * B, C, h, w) -> the same shape."""
    a, b = y.tensor_split([weights.variable.weight.shape[1]], dim=1)
    b_shift, b_scale = weights.coupling(coupling_hidden(weights, a, of_coupling), y.dtype)
    x = torch.cat([a, (b / b_scale).sub_(b_shift)], dim=1)
    samples: Tensor = x.unflatten(0, (-1, len(scale))) / scale
    return samples.sub_(shift).flatten(0, 1)


def coupling_hidden(weights: StepWeights, a: Tensor, of_context: Tensor) -> Tensor:
    """Compute the coupling network's first hidden layer, (n * B, hidden, h, w), of ``a`` (n * B, C // 2, h, w)."""
    return weights.variable.relu(a.to(of_context.dtype), of_context)


# -- windows -----------------------------------------------------------------------------------------------------------


def step_windows(step: FlowStep, context: Context) -> Iterator[Window]:
    """Cut a level into windows whose hidden layers fit into :func:`window_bytes`.

    A convolution sees zeros beyond a window's edge; so a margin as wide as the two networks reach, one after the other,
    is computed and dropped.
    """
    convolutions = [layer for layer in step.modules() if isinstance(layer, nn.Conv2d)]
    reach = sum(int(layer.kernel_size[0]) // 2 for layer in convolutions)
    factor = context.factor
    margin = factor * -(-reach // factor)
    pixel_bytes = len(context.own) * convolutions[0].out_channels * context.own.element_size()
    side = factor * (int((window_bytes(context.own.device) / pixel_bytes) ** 0.5) // factor)
    return windows(context.own.shape[2], context.own.shape[3], max(margin, side), margin)


# -- folding -----------------------------------------------------------------------------------------------------------


def fold(step: FlowStep, dtype: torch.dtype) -> StepWeights:
    """Fold a step's affine layers into the weights of its networks, in ``dtype``."""
    (injector_first, injector), (coupling_first, coupling) = (
        fold_net(net, dtype) for net in (step.injector.net, step.coupling.net)
    )
    assert injector_first.bias is not None and coupling_first.bias is not None
    variable, of_context = coupling_first.weight.tensor_split([step.coupling.kept], dim=1)
    condition = Convolution(
        torch.cat([injector_first.weight, of_context]), torch.cat([injector_first.bias, coupling_first.bias])
    )
    return StepWeights(condition, Convolution(variable, None), injector, coupling)


def fold_net(net: ConditionalNet, dtype: torch.dtype) -> tuple[Convolution, NetWeights]:
    """Fold a conditional net: its first convolution, and the others."""
    modules = list(net)
    convolutions = []
    for conv, affine in zip(modules[:-1:3], modules[1:-1:3], strict=True):
        assert isinstance(conv, nn.Conv2d) and isinstance(affine, ChannelAffine)
        factor = affine.logs.exp()
        weight = conv.weight * factor.transpose(0, 1)
        convolutions.append(Convolution(weight.to(dtype), (affine.bias * factor).flatten().to(dtype)))
    last = modules[-1]
    assert isinstance(last, ZeroConv2d) and last.bias is not None
    factor = (3 * last.logs).exp()
    # Shifts are the even channels, raw scales the odd ones: sorted here, where they are few.
    weight, bias = (
        torch.cat([values[0::2], values[1::2]]).to(dtype)
        for values in (last.weight * factor[..., None], last.bias * factor.flatten())
    )
    return convolutions[0], NetWeights(convolutions[1:], Convolution(weight, bias), net.scale)


def mixing(step: TransitionStep) -> tuple[Tensor, Tensor]:
    """Fold ActNorm and invertible 1x1 convolution of a step into one convolution."""
    weight = step.invconv.weight * step.actnorm.logs.exp().view(1, -1)
    # The sum by hand: a product of matrices may be in TF32.
    return weight[:, :, None, None], (weight * step.actnorm.bias.view(1, -1)).sum(1)


def inverse_mixings(steps: Sequence[TransitionStep]) -> list[tuple[Tensor, Tensor]]:
    """Invert :func:`mixing` of all steps, in float64."""
    weights = to_complete(torch.stack([step.invconv.weight for step in steps])).double()
    weights = of_each(inverse, weights)
    scales = to_complete(torch.stack([(-step.actnorm.logs).exp().view(-1, 1) for step in steps]))
    weights = (weights * scales).to(steps[0].actnorm.bias.dtype).to(steps[0].actnorm.bias.device)
    return [
        (weight[:, :, None, None], -step.actnorm.bias.flatten()) for weight, step in zip(weights, steps, strict=True)
    ]


def inverse(weight: Tensor) -> Tensor:
    """Invert matrices; on other devices than CPUs a singular one gives infinities, since asking would wait for it."""
    inverted: Tensor = torch.linalg.inv_ex(weight, check_errors=weight.device.type == "cpu").inverse
    return inverted


def of_each(function: Callable[[Tensor], Tensor], matrices: Tensor) -> Tensor:
    """Apply a function of linear algebra to each of several matrices (N, C, C).

    On CPUs one after the other: PyTorch 2.14 with oneMKL 2024.2 factorises several of 160 channels or more wrongly, and
    says nothing, once a program has called ``torch.set_num_threads``.
    """
    if matrices.device.type == "cpu":
        return torch.stack([function(matrix) for matrix in matrices])
    return function(matrices)


def channel_logdet(steps: Sequence[TransitionStep]) -> Tensor:
    """Compute the log-det by position of all ActNorms and 1x1 convolutions of a level; a scalar."""
    weights = to_complete(torch.stack([step.invconv.weight for step in steps]))
    logdets = of_each(lambda weight: torch.linalg.slogdet(weight).logabsdet, weights)
    of_actnorms = torch.stack([step.actnorm.logs for step in steps]).sum()
    total: Tensor = logdets.sum().to(of_actnorms.device) + of_actnorms
    return total
