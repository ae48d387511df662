"""Cutting an image into windows that are computed with a margin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

Area = tuple[slice, slice]


class Window(NamedTuple):
    """Rows and columns: what is computed, with a margin, what of it is kept, and where that is in what is computed."""

    outer: Area
    inner: Area
    inner_in_outer: Area


def windows(height: int, width: int, side: int, margin: int) -> Iterator[Window]:
    """Windows of ``side`` x ``side`` that cover an image, with a margin wherever they do not end at its border."""

    def cuts(length: int) -> list[tuple[slice, slice, slice]]:
        inner = [(start, min(start + side, length)) for start in range(0, length, side)]
        outer = [(max(0, start - margin), min(length, stop + margin)) for start, stop in inner]
        return [
            (slice(first, last), slice(start, stop), slice(start - first, stop - first))
            for (first, last), (start, stop) in zip(outer, inner, strict=True)
        ]

    for rows in cuts(height):
        for columns in cuts(width):
            yield Window(*((row, column) for row, column in zip(rows, columns, strict=True)))


def cut(x: Tensor, area: Area) -> Tensor:
    """The rows and columns of (B, C, h, w), a view."""
    return x[:, :, area[0], area[1]]


def enlarged(area: Area, numerator: int, denominator: int = 1) -> Area:
    """The same rows and columns in an image ``numerator / denominator`` times as large."""
    rows, columns = (
        slice(edge.start * numerator // denominator, edge.stop * numerator // denominator) for edge in area
    )
    return rows, columns
