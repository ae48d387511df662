"""What the LR image tells one level of the flow, and the one convolution that reads it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Context(NamedTuple):
    """Features of one level: some of its size, others coarser, which stand for their enlargement by nearest neighbour.

    ``own`` is (B, C, h, w), ``coarse`` (B, C', h / factor, w / factor) or None.
    """

    own: Tensor
    coarse: Tensor | None = None

    @property
    def factor(self) -> int:
        """Of the enlargement; 1 where nothing is coarse."""
        return 1 if self.coarse is None else self.own.shape[2] // self.coarse.shape[2]

    def crop(self, rows: slice, columns: slice) -> Context:
        """The part in a window whose edges are multiples of ``factor``."""
        own, factor = self.own[:, :, rows, columns], self.factor
        if self.coarse is None:
            return Context(own)
        rows, columns = (slice(edge.start // factor, edge.stop // factor) for edge in (rows, columns))
        return Context(own, self.coarse[:, :, rows, columns])

    def to(self, dtype: torch.dtype) -> Context:
        return Context(self.own.to(dtype), None if self.coarse is None else self.coarse.to(dtype))

    def expanded(self) -> Tensor:
        """All features at the level's size, (B, C + C', h, w)."""
        if self.coarse is None:
            return self.own
        return torch.cat([self.own, F.interpolate(self.coarse, self.own.shape[2:], mode="nearest")], dim=1)

    def conv(self, weight: Tensor, bias: Tensor) -> Tensor:
        """3x3 convolution of :meth:`expanded` with zero padding, without enlarging: (B, O, h, w)."""
        weight, bias = weight.to(self.own.dtype), bias.to(self.own.dtype)
        if self.coarse is None:
            return F.conv2d(self.own, weight, bias, padding=1)
        own, coarse = weight.split([self.own.shape[1], self.coarse.shape[1]], dim=1)
        output = F.conv2d(self.own, own, bias, padding=1)
        return add_conv_of_enlarged(output, self.coarse, coarse)


def add_conv_of_enlarged(output: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Add the 3x3 convolution of an image's nearest-neighbour enlargement to ``output``, in place.

    Three neighbouring pixels of an enlargement come from at most two of the image. So each pixel of ``x`` (B, C, h, w)
    gives its factor x factor outputs by 2x2 convolutions whose taps are sums of the 3x3 one's: the first and the last
    row of a block, and those between, which are all alike, have one each; columns likewise.
    """
    height, width = x.shape[2:]
    factor = output.shape[2] // height
    # By kind of row: which of the three taps fall on the upper and which on the lower of two rows.
    sums = [[[1, 0, 0], [0, 1, 1]], [[1, 1, 1], [0, 0, 0]], [[1, 1, 0], [0, 0, 1]]]
    kinds = [0, *[1] * (factor - 2), 2]
    present = sorted(set(kinds))
    taps = torch.tensor([sums[kind] for kind in present], dtype=weight.dtype, device=weight.device)
    kernels = torch.einsum("ocij,kri,lsj->klocrs", weight, taps, taps)
    blocks = F.conv2d(x, kernels.flatten(0, 2), padding=1)
    size = weight.shape[0]
    for row, row_kind in enumerate(kinds):
        for column, column_kind in enumerate(kinds):
            first = size * (present.index(row_kind) * len(present) + present.index(column_kind))
            top, left = int(row_kind > 0), int(column_kind > 0)
            output[:, :, row::factor, column::factor] += blocks[
                :, first : first + size, top : top + height, left : left + width
            ]
    return output
