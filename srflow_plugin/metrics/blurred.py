"""Convolution and blur of shift-tolerant networks as one convolution: the same numbers for a third of the work.

ST-LPIPS's AlexNet convolves at every pixel, then blurs, and keeps every second value of every second row. One kernel
that reaches as far as both does that for the values that are kept only.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class BlurredConvolution(nn.Module):
    """A convolution of stride 1, then a blur by 3x3 that keeps every second value, its borders reflected by two.

    The blur is symmetric, so that the first row, reflected about the first, is the second again; columns likewise. The
    last ones are reflected about another place, and left to the two layers.

    Args:
        convolution, blur: the two layers, an ``nn.Conv2d`` and a ``Downsample`` of the network's package.
    """

    def __init__(self, convolution: Any, blur: Any) -> None:
        super().__init__()
        self.convolution, self.blur = convolution, blur
        kernels = convolution.weight.detach().double().flatten(0, 1)[:, None]
        both = F.conv_transpose2d(kernels, blur.filt[:1].double())[:, 0]
        self.weight: Tensor
        self.register_buffer("weight", both.unflatten(0, convolution.weight.shape[:2]).to(convolution.weight))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', h, w): half as many rows as the convolution has, and one more."""
        inner = F.conv2d(x, self.weight, self.convolution.bias, stride=2, padding=self.convolution.padding)
        whole = F.pad(inner, (1, 1, 1, 1), mode="replicate")
        row, column = map(self._end, x.shape[2:], self.convolution.kernel_size)
        whole[:, :, -1] = self.blur(self.convolution(x[:, :, row:]))[:, :, -1]
        whole[..., -1] = self.blur(self.convolution(x[..., column:]))[..., -1]
        return whole

    def _end(self, size: int, kernel: int) -> int:
        """Find the even place from where on the image tells the last row."""
        return max(0, (size - kernel - 2) // 2 * 2)


def merge_blurs(network: nn.Module) -> None:
    """Have a network's convolutions do the blurs that follow them at once, in place."""
    for layers in network.children():
        for (name, layer), (next_name, following) in pairwise([*layers.named_children()]):
            if _blurs(layer, following):
                layers.add_module(name, BlurredConvolution(layer, following))
                layers.add_module(next_name, nn.Identity())


def _blurs(layer: Any, following: Any) -> bool:
    """Say if these are the layers that :class:`BlurredConvolution` does."""
    return (
        isinstance(layer, nn.Conv2d)
        and (layer.stride, layer.dilation, layer.groups, layer.padding_mode) == ((1, 1), (1, 1), 1, "zeros")
        and type(following).__name__ == "Downsample"
        and (following.filt_size, following.stride, following.pad_sizes) == (3, 2, [2] * 4)
        and isinstance(following.pad, nn.ReflectionPad2d)
    )
