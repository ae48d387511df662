"""Images of any size: rows of tiles with an overlap, given out from top to bottom."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from srflow_plugin.memory import available_bytes
from srflow_plugin.progress import with_progress
from srflow_plugin.sampling.explosions import REACH, exploded, resample_exploded
from srflow_plugin.sampling.field import Field

Tile = int | Literal["auto"] | None

MIN_SIDE = 32
MAX_SIDE = 512  # larger ones save less than a tenth of the time
UNKNOWN_SIDE = 128  # where nobody says how much memory there is
# Largest need of a network with the released sizes, with room to spare: measured were 11,500 and 850 bytes.
BYTES_PER_LQ_PIXEL = 14_000
BYTES_PER_SAMPLE = 2_000  # and LR pixel: all samples of a tile are decoded at once
BYTES_PER_PIXEL = 4 * 3 * 3  # of a row of tiles: float32 colours, and copies
SHARE_OF_MEMORY = 0.5


class Band(NamedTuple):
    """Rows of samples, from top to bottom.

    Attributes:
        images: (N, 3, rows, scale*w), not clamped.
        exploded: bool (N,), those that exploded there as they were drawn.
        replaced: (N,), LR pixels that are bicubic, see :func:`srflow_plugin.sampling.explosions.resample_exploded`.
    """

    images: Tensor
    exploded: Tensor
    replaced: Tensor


@torch.no_grad()
def draw_bands(
    field: Field, size: tuple[int, int], resample: float | None = None, progress: bool = False
) -> Iterator[Band]:
    """Decode a field tile by tile, row by row.

    Args:
        field: at its first row.
        size: (h, w) of the LR images without what they were extended by, which is cut off.
        resample: factor for :func:`srflow_plugin.sampling.explosions.resample_exploded`; None: places stay exploded.
        progress: show a bar over the tiles.
    """
    scale, side, width = field.network.scale, field.side, field.width
    lefts = range(0, width, side)
    tiles = [(top, left) for top in range(0, field.height, side) for left in lefts]
    reach = 0 if resample is None else REACH + field.overlap  # LR rows that places below can still change
    margin = field.overlap + REACH + field.network.lq_multiple
    held: Tensor | None = None
    given = 0  # LR rows
    for top, left in with_progress(tiles, "tile", disable=not progress or len(tiles) == 1):
        bottom = min(top + side, field.height)
        if left == 0:
            field.move(given - margin, bottom + margin)
            fresh = field.empty(bottom - top)
        field.decode((slice(top, bottom), slice(left, min(left + side, width))), fresh, top)
        if left < lefts[-1]:
            continue
        wild = exploded(fresh[:, :, : scale * (size[0] - top), : scale * size[1]]).flatten(1).any(1)
        images = fresh if held is None else torch.cat([held, fresh], 2)
        if resample is None:
            replaced = images.new_zeros(len(images), dtype=torch.long)
        else:
            replaced = resample_exploded(field, images, given, resample)
        ready = bottom if bottom == field.height else max(given, bottom - reach)
        yield Band(images[:, :, : scale * (min(ready, size[0]) - given), : scale * size[1]], wild, replaced)
        held, given = images[:, :, scale * (ready - given) :].clone(), ready
        del images, fresh  # or they would be kept through the next row of tiles


def tile_side(
    tile: Tile, shape: Sequence[int], num_samples: int, scale: int, device: torch.device | None = None
) -> int | None:
    """Find the side of the tiles of LR images (B, 3, h, w), in LR pixels; None: the whole image is one.

    ``tile`` is the side, or "auto": as large as the free memory of the device allows, for samples of that many.
    """
    if tile == "auto":
        tile = _side_for(available_bytes(device), shape, num_samples, scale)
    return None if tile is None or tile >= max(shape[2:]) else tile


def _side_for(free: int | None, shape: Sequence[int], num_samples: int, scale: int) -> int:
    """Solve tile + row of tiles = memory, a side**2 + b side = c, for the side."""
    if free is None:
        return UNKNOWN_SIDE
    a = shape[0] * (BYTES_PER_LQ_PIXEL + num_samples * BYTES_PER_SAMPLE)
    b = shape[0] * num_samples * shape[3] * scale**2 * BYTES_PER_PIXEL
    side = (math.sqrt(b**2 + 4 * a * SHARE_OF_MEMORY * free) - b) / (2 * a)
    return min(MAX_SIDE, max(MIN_SIDE, int(side) - 2 * Field.overlap))
