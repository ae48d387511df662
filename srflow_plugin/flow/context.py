"""Features of the LR image for one level of the flow, and the one convolution that reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

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
        """Factor of the enlargement; 1 where nothing is coarse."""
        return 1 if self.coarse is None else self.own.shape[2] // self.coarse.shape[2]

    def crop(self, rows: slice, columns: slice) -> Context:
        """Cut out a window whose edges are multiples of ``factor``."""
        own, factor = self.own[:, :, rows, columns], self.factor
        if self.coarse is None:
            return Context(own)
        rows, columns = (slice(edge.start // factor, edge.stop // factor) for edge in (rows, columns))
        return Context(own, self.coarse[:, :, rows, columns])

    def to(self, dtype: torch.dtype) -> Context:
        return Context(self.own.to(dtype), None if self.coarse is None else self.coarse.to(dtype))

    def expanded(self) -> Tensor:
        """Make all features at the level's size, (B, C + C', h, w)."""
        if self.coarse is None:
            return self.own
        return torch.cat([self.own, F.interpolate(self.coarse, self.own.shape[2:], mode="nearest")], dim=1)

    def conv(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute the 3x3 convolution of :meth:`expanded` with zero padding, without enlarging: (B, O, h, w)."""
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
    kernels = kernels_of_enlarged(weight, output.shape[2] // x.shape[2])
    return cast(Tensor, _AddByKind.apply(output, F.conv2d(x, kernels, padding=1)))


def kernels_of_enlarged(weight: Tensor, factor: int) -> Tensor:
    """Make the 2x2 convolutions of :func:`add_conv_of_enlarged` of a 3x3 one, (O, C, 3, 3).

    They are (kinds * kinds * O, C, 2, 2), by kind of row, then of column, as :func:`kinds_of_rows` numbers them.
    """
    by_column = _tap_sums(weight, 3, factor)  # (kind, O, C, 3, 2)
    return _tap_sums(by_column, 3, factor).flatten(0, 2)


def kinds_of_rows(factor: int) -> list[int]:
    """Number the kinds of the rows of a block of ``factor``: the first, those between, the last.

    >>> kinds_of_rows(2), kinds_of_rows(4)
    ([0, 1], [0, 1, 1, 2])
    """
    return [0, *[1] * (factor - 2), 1 if factor == 2 else 2]


def _tap_sums(weight: Tensor, axis: int, factor: int) -> Tensor:
    """Add up three taps along an axis on two rows of the image, for each kind of row of an enlargement.

    The kinds are the first row of a block, one between (not where ``factor`` is 2), the last. The upper of the two rows
    is the one before the block's own for the first kind, else its own.
    """
    one, two, three = weight.unbind(axis)
    kinds = [(one, two + three), (one + two + three, torch.zeros_like(one)), (one + two, three)]
    if factor == 2:
        del kinds[1]
    return torch.stack([torch.stack(kind, axis) for kind in kinds])


class _AddByKind(torch.autograd.Function):
    """Add the outputs of :func:`add_conv_of_enlarged`'s convolutions where they belong.

    Autograd's own backward of such slices fills and copies whole tensors for each.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, blocks: Tensor) -> Tensor:
        ctx.mark_dirty(output)
        ctx.blocks_shape = blocks.shape
        for own, part in _places(output, blocks):
            own += part
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        of_blocks = grad.new_zeros(ctx.blocks_shape).contiguous(memory_format=torch.channels_last)
        for own, part in _places(grad, of_blocks):
            part += own
        return grad, of_blocks


def _places(output: Tensor, blocks: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Pair each pixel of a block in ``output`` (B, O, h * factor, w * factor) with its part of ``blocks``, as views."""
    size, height, width = output.shape[1], blocks.shape[2] - 1, blocks.shape[3] - 1
    factor = output.shape[2] // height
    kinds = kinds_of_rows(factor)
    for row, row_kind in enumerate(kinds):
        for column, column_kind in enumerate(kinds):
            first = size * (row_kind * (kinds[-1] + 1) + column_kind)
            top, left = min(row_kind, 1), min(column_kind, 1)
            part = blocks[:, first : first + size, top : top + height, left : left + width]
            yield output[:, :, row::factor, column::factor], part
