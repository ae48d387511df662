"""The whole flow: levels of steps, with latents split off on the way.

This is the definition. :mod:`srflow_plugin.flow.fast` is the plan by which the same numbers are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from srflow_plugin.flow.bijection import Bijection, Chain
from srflow_plugin.flow.coupling import AffineCoupling, AffineInjector, Scale, Split, sigmoid_scale
from srflow_plugin.flow.layers import ActNorm, InvertibleConv1x1, Squeeze
from srflow_plugin.flow.precision import full_precision

TRANSITION_STEPS = 2


class TransitionStep(Chain):
    """ActNorm and invertible 1x1 convolution: lets a level mix its channels before the context enters."""

    def __init__(self, channels: int, *conditional: Bijection) -> None:
        super().__init__([ActNorm(channels), InvertibleConv1x1(channels), *conditional])

    @property
    def actnorm(self) -> ActNorm:
        return cast(ActNorm, self.bijections[0])

    @property
    def invconv(self) -> InvertibleConv1x1:
        return cast(InvertibleConv1x1, self.bijections[1])


class FlowStep(TransitionStep):
    """One conditional flow step (SRFlow, figure 2): mixing as above, affine injector, affine coupling.

    Args:
        channels, context_channels: of the flow's own variable, of the context.
        hidden_channels, scale: of the networks of injector and coupling, see :class:`ConditionalNet`.
        coupling_layers, coupling_kernel_size: ``hidden_layers`` and ``kernel_size`` of the coupling's.
    """

    def __init__(
        self,
        channels: int,
        context_channels: int,
        hidden_channels: int,
        scale: Scale = sigmoid_scale,
        coupling_layers: int = 1,
        coupling_kernel_size: int = 1,
    ) -> None:
        arguments = (channels, context_channels, hidden_channels, scale)
        super().__init__(
            channels, AffineInjector(*arguments), AffineCoupling(*arguments, coupling_layers, coupling_kernel_size)
        )

    @property
    def injector(self) -> AffineInjector:
        return cast(AffineInjector, self.bijections[2])

    @property
    def coupling(self) -> AffineCoupling:
        return cast(AffineCoupling, self.bijections[3])


class MultiScaleFlow(nn.Module):
    """The invertible network f(y; x): images to latents and back (SRFlow, section 3.3).

    Level l = 1..L: squeeze, two transition steps, K conditional steps, and at levels l < L - 1 a split that hands
    half of the channels out as a latent. What is left after level L is the last latent.

    Args:
        in_channels: channels of the image.
        num_levels: L. Height and width of the image must be multiples of 2^L.
        num_steps: K.
        make_step: makes a conditional step for a number of channels, such as :class:`FlowStep`.

    Attributes:
        compiled: the plan runs its steps through a compiler (:mod:`srflow_plugin.flow.compiled`); False at first.
    """

    def __init__(
        self, in_channels: int, num_levels: int, num_steps: int, make_step: Callable[[int], Bijection]
    ) -> None:
        super().__init__()
        levels: list[Chain] = []
        splits: list[Split] = []
        channels = in_channels
        for level in range(1, num_levels + 1):
            channels *= 4
            steps: list[Bijection] = [TransitionStep(channels) for _ in range(TRANSITION_STEPS)]
            steps += [make_step(channels) for _ in range(num_steps)]
            levels.append(Chain([Squeeze(), *steps]))
            if level < num_levels - 1:
                splits.append(Split(channels))
                channels //= 2
        self.in_channels = in_channels
        self.compiled = False
        # nn.ModuleList does not tell what it holds.
        self.levels: Sequence[Chain] = nn.ModuleList(levels)  # type: ignore[assignment]
        self.splits: Sequence[Split] = nn.ModuleList(splits)  # type: ignore[assignment]

    @full_precision()
    def forward(self, x: Tensor, contexts: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Encode: image (B, C, H, W) and one context a level, finest first -> latents, finest first, log-det (B,)."""
        total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        latents = []
        for index, (level, context) in enumerate(zip(self.levels, contexts, strict=True)):
            x, logdet = level(x, context)
            total = total + logdet
            if index < len(self.splits):
                x, latent, logdet = self.splits[index](x)
                total = total + logdet
                latents.append(latent)
        return [*latents, x], total

    @full_precision()
    def inverse(self, latents: Sequence[Tensor], contexts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Decode: latents, finest first -> image (B, C, H, W), log-det (B,) of this direction."""
        *split_latents, y = latents
        total = torch.zeros(len(y), dtype=y.dtype, device=y.device)
        for index in reversed(range(len(self.levels))):
            if index < len(self.splits):
                y, logdet = self.splits[index].inverse(y, split_latents[index])
                total = total + logdet
            y, logdet = self.levels[index].inverse(y, contexts[index])
            total = total + logdet
        return y, total

    def latent_shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """Shapes (C, H, W) of the latents, finest first, of an image of that size."""
        shapes = []
        channels = self.in_channels
        for index in range(len(self.levels)):
            channels, height, width = 4 * channels, height // 2, width // 2
            if index < len(self.splits):
                kept = self.splits[index].kept
                shapes.append((channels - kept, height, width))
                channels = kept
        return [*shapes, (channels, height, width)]
