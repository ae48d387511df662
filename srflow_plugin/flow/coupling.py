"""The layers through which the LR image steers the flow, and the split with its learned prior."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from srflow_plugin.flow.bijection import Bijection
from srflow_plugin.flow.layers import ChannelAffine, ZeroConv2d

PAPER_SCALE_FLOOR = 1e-4

Scale = Callable[[Tensor], Tensor]


def sigmoid_scale(raw: Tensor, floor: float = PAPER_SCALE_FLOOR) -> Tensor:
    """``sigmoid(raw + 2) + floor``: the paper's scale, between ``floor`` and 1 + ``floor``.

    The inverse multiplies by up to 1 / floor in every layer, and float errors with it.
    """
    return torch.sigmoid(raw + 2) + floor


def bounded_scale(raw: Tensor, bound: float) -> Tensor:
    """``exp(bound tanh(raw / bound))``: log-scales smoothly bounded to +-``bound``, so both directions magnify alike.

    Near 0 the log-scale is ``raw`` itself; an untrained layer leaves its input as it is.
    """
    return torch.exp(bound * torch.tanh(raw / bound))


class ConditionalNet(nn.Sequential):
    """Small convolutional network (B, C_in, H, W) -> shift and scale, each (B, C_out, H, W).

    conv 3x3, conv 1x1 (each with a data-fitted affine layer and ReLU), zero conv 3x3. Of its 2 C_out output channels
    the even ones are the shift, the odd ones the raw scale.

    Args:
        in_channels, hidden_channels, out_channels: C_in, width, C_out.
        scale: makes the scale of the raw one.
        hidden_layers, kernel_size: number and size of the convolutions between the first and the last.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        scale: Scale = sigmoid_scale,
        hidden_layers: int = 1,
        kernel_size: int = 1,
    ) -> None:
        layers: list[nn.Module] = []
        for index in range(1 + hidden_layers):
            size, width = (3, in_channels) if index == 0 else (kernel_size, hidden_channels)
            layers += [
                nn.Conv2d(width, hidden_channels, size, padding=size // 2, bias=False),
                ChannelAffine(hidden_channels),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers, ZeroConv2d(hidden_channels, 2 * out_channels))
        for conv in self:
            if type(conv) is nn.Conv2d and not conv.weight.is_meta:  # or PyTorch would import its compiler
                nn.init.normal_(conv.weight, std=0.05)
        self.scale = scale

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        output: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return output[:, 0::2], self.scale(output[:, 1::2])


class AffineInjector(Bijection):
    """Affine map of all channels by the context alone: ``h = (x + shift(u)) * scale(u)`` (SRFlow, eq. 5)."""

    def __init__(
        self, channels: int, context_channels: int, hidden_channels: int, scale: Scale = sigmoid_scale
    ) -> None:
        super().__init__()
        self.net = ConditionalNet(context_channels, hidden_channels, channels, scale)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shift, scale = self.net(context)
        return (x + shift) * scale, scale.log().flatten(1).sum(1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shift, scale = self.net(context)
        return y / scale - shift, -scale.log().flatten(1).sum(1)


class AffineCoupling(Bijection):
    """Conditional affine coupling (SRFlow, eq. 4): one half of the channels and the context map the other half.

    ``h_a`` is the first C // 2 channels and stays; ``h_b = (h_b + shift(h_a, u)) * scale(h_a, u)``.
    SRFlow-DA (Jo et al., NTIRE 2021) makes the network of shift and scale deeper: ``hidden_layers`` convolutions of
    ``kernel_size`` between its first and its last.
    """

    def __init__(
        self,
        channels: int,
        context_channels: int,
        hidden_channels: int,
        scale: Scale = sigmoid_scale,
        hidden_layers: int = 1,
        kernel_size: int = 1,
    ) -> None:
        super().__init__()
        self.kept = channels // 2
        self.net = ConditionalNet(
            self.kept + context_channels, hidden_channels, channels - self.kept, scale, hidden_layers, kernel_size
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        a, b, shift, scale = self._parts(x, context)
        return torch.cat([a, (b + shift) * scale], dim=1), scale.log().flatten(1).sum(1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        a, b, shift, scale = self._parts(y, context)
        return torch.cat([a, b / scale - shift], dim=1), -scale.log().flatten(1).sum(1)

    def _parts(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        assert context is not None
        a, b = x[:, : self.kept], x[:, self.kept :]
        return a, b, *self.net(torch.cat([a, context], dim=1))


class Split(nn.Module):
    """Half of the channels leave as a latent under a prior that the other half predicts.

    The prior is N(mean, std) with mean and log std from a zero conv of the kept half; the latent is handed out
    standardised, ``(x - mean) / std``, so that it is N(0, I) with log-det ``-sum(log std)``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.kept = channels // 2
        self.prior = ZeroConv2d(self.kept, 2 * (channels - self.kept))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C, H, W) -> kept half, latent, log-det (B,)."""
        kept, latent, logdet = self.by_position(x)
        return kept, latent, logdet.flatten(1).sum(1)

    def by_position(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C, H, W) -> kept half, latent, log-det of each position (B, 1, H, W)."""
        kept, other = x[:, : self.kept], x[:, self.kept :]
        mean, log_std = self._moments(kept)
        return kept, (other - mean) * (-log_std).exp(), -log_std.sum(1, keepdim=True)

    def inverse(self, kept: Tensor, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Kept half and latent -> (B, C, H, W) and log-det (B,)."""
        mean, log_std = self._moments(kept)
        return torch.cat([kept, mean + latent * log_std.exp()], dim=1), log_std.flatten(1).sum(1)

    def _moments(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        output = self.prior(kept)
        return output[:, 0::2], output[:, 1::2]
