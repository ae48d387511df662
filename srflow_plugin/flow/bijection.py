"""The contract of every invertible layer, and their composition."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


class Bijection(nn.Module):
    """An invertible map of images, conditioned on a context.

    Both directions return ``(output, logdet)``: the mapped image (B, C, H, W) and the log-determinant of that
    direction's Jacobian, (B,) in nats, also where it is zero. Layers that need no context ignore it.
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map data towards the latent space (the normal direction)."""
        raise NotImplementedError

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map latents towards data: ``inverse(forward(x)[0])[0] == x``."""
        raise NotImplementedError


class Chain(Bijection):
    """Bijections one after the other; their log-determinants add up."""

    def __init__(self, bijections: Iterable[Bijection]) -> None:
        super().__init__()
        # nn.ModuleList does not tell what it holds.
        self.bijections: Sequence[Bijection] = nn.ModuleList(bijections)  # type: ignore[assignment]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for bijection in self.bijections:
            x, logdet = bijection(x, context)
            total = total + logdet
        return x, total

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = torch.zeros(len(y), dtype=y.dtype, device=y.device)
        for bijection in reversed(self.bijections):
            y, logdet = bijection.inverse(y, context)
            total = total + logdet
        return y, total
