"""Large images: tiles with an overlap, cut from one map of latents, so that neighbours show the same image."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from srflow_plugin.flow.windows import Window, cut, enlarged, windows
from srflow_plugin.progress import with_progress

OVERLAP = 16  # LR pixels on each side of a tile; docs/speed.md says what that is good for
MIN_SIDE = 32
# Largest need of a network with the released sizes, with room to spare: measured were 11,500 and 850 bytes.
BYTES_PER_LQ_PIXEL = 14_000
BYTES_PER_SAMPLE = 2_000  # and LR pixel: all samples of a tile are decoded at once
SHARE_OF_MEMORY = 0.5


def decode_in_tiles(
    decode: Callable[[list[Tensor], Tensor], Tensor],
    latents: Sequence[Tensor],
    lq: Tensor,
    scale: int,
    multiple: int,
    side: int,
    progress: bool = False,
) -> Tensor:
    """Compute ``decode(latents, lq)`` tile by tile: (n * B, 3, scale*h, scale*w).

    Args:
        decode: of latents and LR images of one tile.
        latents, lq: of the whole image, whose LR height and width are multiples of ``multiple``.
        scale: of the image to ``lq``.
        side: of a tile without its overlap, in LR pixels.
        progress: show a bar.
    """
    height, width = lq.shape[2:]
    side, overlap = (multiple * -(-size // multiple) for size in (side, OVERLAP))
    image = lq.new_empty(len(latents[0]), lq.shape[1], scale * height, scale * width)
    tiles = list(windows(height, width, side, overlap))
    for window in with_progress(tiles, "tile", disable=not progress or len(tiles) == 1):
        decode_window(decode, latents, lq, window, image, scale)
    return image


def decode_window(
    decode: Callable[[list[Tensor], Tensor], Tensor],
    latents: Sequence[Tensor],
    lq: Tensor,
    window: Window,
    image: Tensor,
    scale: int,
) -> None:
    """Write ``decode(latents, lq)`` of a window of ``lq`` to its place in ``image``."""
    parts = [cut(latent, enlarged(window.outer, latent.shape[2], lq.shape[2])) for latent in latents]
    part = decode(parts, cut(lq, window.outer))
    cut(image, enlarged(window.inner, scale)).copy_(cut(part, enlarged(window.inner_in_outer, scale)))


def tile_side(tile: int | Literal["auto"] | None, lq: Tensor, num_samples: int) -> int | None:
    """Find the side of the tiles of ``lq`` (B, C, h, w), in LR pixels; None: the whole image is one.

    ``tile`` is the side, or "auto": as large as the free memory of the device allows.
    """
    if tile == "auto":
        if lq.is_cuda:
            free, _ = torch.cuda.mem_get_info(lq.device)
        else:
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        bytes_per_pixel = len(lq) * (BYTES_PER_LQ_PIXEL + num_samples * BYTES_PER_SAMPLE)
        tile = max(MIN_SIDE, int((SHARE_OF_MEMORY * free / bytes_per_pixel) ** 0.5) - 2 * OVERLAP)
    return None if tile is None or tile >= max(lq.shape[2:]) else tile
