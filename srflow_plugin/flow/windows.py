"""Cutting an image into windows that are computed with a margin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

Area = tuple[slice, slice]


class Window(NamedTuple):
    """Rows and columns of the part computed, with a margin, of the part kept, and of the latter within the former."""

    outer: Area
    inner: Area
    inner_in_outer: Area


def windows(height: int, width: int, side: int, margin: int) -> Iterator[Window]:
    """Cover an image with windows of ``side`` x ``side``, with a margin wherever they do not end at its border."""

    def cuts(length: int) -> Iterator[tuple[slice, slice, slice]]:
        for start in range(0, length, side):
            yield with_margin(slice(start, min(start + side, length)), length, margin)

    for rows in cuts(height):
        for columns in cuts(width):
            yield Window(*zip(rows, columns, strict=True))


def with_margin(inner: slice, length: int, margin: int, multiple: int = 1) -> tuple[slice, slice, slice]:
    """Make a ``Window`` for one axis of an image of this length; the computed part ends at multiples."""
    first = max(0, inner.start - margin) // multiple * multiple
    last = min(length, -(-(inner.stop + margin) // multiple) * multiple)
    return slice(first, last), inner, slice(inner.start - first, inner.stop - first)


def cut(x: Tensor, area: Area) -> Tensor:
    """Cut rows and columns out of (B, C, h, w), as a view."""
    return x[:, :, area[0], area[1]]


def enlarged(area: Area, numerator: int, denominator: int = 1) -> Area:
    """Find the same rows and columns in an image ``numerator / denominator`` times as large."""
    rows, columns = (
        slice(edge.start * numerator // denominator, edge.stop * numerator // denominator) for edge in area
    )
    return rows, columns
