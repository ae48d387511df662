"""The layers of the flow that do not look at the LR image."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srflow_plugin.flow.bijection import Bijection
from srflow_plugin.flow.precision import to_complete

Average = Callable[[Tensor], Tensor]
FLAT = 1e-3  # standard deviation below which a channel tells nothing of its scale


def local(mean: Tensor) -> Tensor:
    """Leave the mean over this process's batch as it is."""
    return mean


class ChannelAffine(nn.Module):
    """Per-channel affine layer ``h = (x + bias) * exp(logs)`` whose start is fitted to data.

    ``initialized`` is a buffer, so a checkpoint remembers whether the layer has seen data.
    """

    initialized: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.logs = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.register_buffer("initialized", torch.tensor(False))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.bias) * self.logs.exp()

    @torch.no_grad()
    def fit(self, x: Tensor, average: Average = local) -> None:
        """Set bias and logs so that each channel of ``x`` (B, C, H, W) leaves with mean 0 and variance 1.

        A channel that is flat in this batch keeps its scale, which would else be enormous for the next. ``average``
        makes the mean of a batch's part the mean of the whole, where processes share one.
        """
        mean = average(x.mean((0, 2, 3), keepdim=True))
        std = average((x - mean).square().mean((0, 2, 3), keepdim=True)).sqrt()
        self.bias.copy_(-mean)
        self.logs.copy_(torch.where(std < FLAT, self.logs, -(std + 1e-6).log()))
        self.initialized.fill_(True)


class ActNorm(ChannelAffine, Bijection):
    """Activation normalisation (Glow): the per-channel affine layer as a bijection, log-det = H W sum(logs)."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(x), self._logdet(x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y * (-self.logs).exp() - self.bias, -self._logdet(y)

    def _logdet(self, x: Tensor) -> Tensor:
        return (x.shape[2] * x.shape[3] * self.logs.sum()).expand(len(x))


class InvertibleConv1x1(Bijection):
    """Invertible 1x1 convolution ``h = W x`` (Glow) with a full C x C matrix; log-det = H W log|det W|."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation = torch.empty(channels, channels)
        if not rotation.is_meta:  # or PyTorch would import its compiler
            rotation, _ = torch.linalg.qr(torch.randn(channels, channels))
        self.weight = nn.Parameter(rotation.contiguous())

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return F.conv2d(x, self.weight[:, :, None, None]), self._logdet(x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # The matrix is small: inverting in float64 costs nothing and keeps the round trip at float32's own error.
        weight = torch.linalg.inv(to_complete(self.weight).double()).to(y.dtype).to(y.device)
        return F.conv2d(y, weight[:, :, None, None]), -self._logdet(y)

    def _logdet(self, x: Tensor) -> Tensor:
        of_position = torch.linalg.slogdet(to_complete(self.weight)).logabsdet.to(x.device)
        logdet: Tensor = (x.shape[2] * x.shape[3] * of_position).expand(len(x))
        return logdet


class Squeeze(Bijection):
    """Trade space for channels, 2x2: (B, C, H, W) <-> (B, 4C, H/2, W/2); volume preserving."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return F.pixel_unshuffle(x, 2), x.new_zeros(len(x))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return F.pixel_shuffle(y, 2), y.new_zeros(len(y))


class ZeroConv2d(nn.Conv2d):
    """3x3 convolution that starts as zero: ``(conv(x) + bias) * exp(3 logs)`` (Glow)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)
        self.logs = nn.Parameter(torch.zeros(out_channels, 1, 1))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (3 * self.logs).exp()


@torch.no_grad()
def initialize_from_data(run: Callable[[], object], network: nn.Module, average: Average = local) -> None:
    """Fit each :class:`ChannelAffine` of ``network`` that has seen no data, in the order in which ``run`` calls them.

    Each layer is fitted to what reaches it through the layers already fitted before it (Glow, section 3.1);
    ``average`` as in :meth:`ChannelAffine.fit`.
    """
    layers = [module for module in network.modules() if isinstance(module, ChannelAffine) and not module.initialized]
    hooks = [layer.register_forward_pre_hook(lambda layer, args: layer.fit(args[0], average)) for layer in layers]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
