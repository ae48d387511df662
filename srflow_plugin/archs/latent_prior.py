"""The learned prior: latents predicted from the LR image, in place of drawn ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS = 2


class LatentPrior(nn.Module):
    """Network that predicts the latents of a flow from the features of its LR encoder.

    The idea is that of BFSR (Tsao et al., CVPR 2024): a flow decodes one image well where its latents are neither noise
    nor zeros, but what fits the LR image. A trunk works at LR size, and a head for each level brings it to that level's
    size by sub-pixel shuffling. The heads begin as zeros: an untrained prior draws the image of temperature 0.

    A latent depends on no more than 2 + 2 * BLOCKS LR pixels around it, and two pixels of the coarsest level, so that
    windows with the margin of a :class:`~srflow_plugin.sampling.field.Field` have the latents of the whole image.

    Args:
        in_channels: of the features.
        channels: width.
        sizes: channels and height of each level's latents, finest first, for ``unit`` LR pixels.
        unit: LR pixels.
    """

    def __init__(self, in_channels: int, channels: int, sizes: Sequence[tuple[int, int]], unit: int) -> None:
        super().__init__()
        self.first = conv(in_channels, channels)
        self.blocks = nn.ModuleList(Block(channels) for _ in range(BLOCKS))
        self.heads = nn.ModuleList(Head(channels, *size, unit) for size in sizes)

    def forward(self, features: Tensor) -> list[Tensor]:
        """Features of LR size (B, in_channels, h, w) -> latents, finest first, in the precision of the weights."""
        x = F.leaky_relu(self.first(features.to(self.first.weight.dtype)), 0.2)
        for block in self.blocks:
            x = block(x)
        return [head(x) for head in self.heads]


class Block(nn.Module):
    """Residual block of two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.two = conv(channels, channels), conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.two(F.leaky_relu(self.one(x), 0.2))
        return x + change


class Head(nn.Module):
    """Convolution to the latents of one level: (B, channels, h, w) -> (B, out_channels, h * height / unit, ...)."""

    def __init__(self, channels: int, out_channels: int, height: int, unit: int) -> None:
        super().__init__()
        self.enlarged, self.reduced = max(1, height // unit), max(1, unit // height)
        self.conv = conv(channels * self.reduced**2, out_channels * self.enlarged**2)
        nn.init.zeros_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(F.pixel_unshuffle(x, self.reduced)), self.enlarged)


def conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Make a 3x3 convolution that begins without a bias."""
    layer = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
