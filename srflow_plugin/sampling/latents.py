"""Latents drawn from seeds, any window of them by itself: an image of any size needs no more of them than it shows."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from srflow_plugin.flow.windows import Area, cut, enlarged

BLOCK = 256  # LR pixels a side that have one seed; pictures up to that size are those of versions before blocks
MAX_CACHE = 2**26  # bytes
CPU = torch.device("cpu")
Shapes = Sequence[tuple[int, int, int]]
Levels = list[Tensor]


class GivenLatents:
    """Latents that are there, (N, C, H, W) each, finest first, of one LR image of a size (h, w)."""

    def __init__(self, levels: Levels, size: tuple[int, int]) -> None:
        self.levels = levels
        self.size = size
        self.samples = range(len(levels[0]))

    def window(self, area: Area) -> Levels:
        """Cut a window, given in LR pixels."""
        return [cut(level, enlarged(area, level.shape[2], self.size[0])) for level in self.levels]


class Latents:
    """N(0, I) latents of samples of LR images, which all have one size.

    Block after block, each from a generator of its own, they are drawn on the CPU, in float32: the same seed is the
    same picture on every device and in every precision, whole or in any tiles, alone or in a batch. Sample k is the
    same however many are asked for. Another device draws faster, and from the same seeds another picture.

    Args:
        shapes: (C, H, W) of the levels, finest first.
        size: (h, w) of the LR images, multiples of what the network asks for.
        seeds: of each image, or one that all have.
        images: number of the LR images.
        samples: numbers of those that are wanted.
        device: that draws.
    """

    def __init__(
        self,
        shapes: Shapes,
        size: tuple[int, int],
        seeds: Sequence[int],
        images: int,
        samples: Sequence[int],
        device: torch.device = CPU,
    ) -> None:
        self.shapes = shapes
        self.size = size
        self.seeds = seeds
        self.repeats = images // len(seeds)
        self.samples = samples
        self.device = device
        self._blocks: OrderedDict[tuple[int, int], Levels] = OrderedDict()

    def window(self, area: Area) -> Levels:
        """Draw the latents of a window, given in LR pixels: (samples * images, C, rows, columns), finest first."""
        of_rows: list[Levels] = []
        for top in range(area[0].start // BLOCK * BLOCK, area[0].stop, BLOCK):
            lefts = range(area[1].start // BLOCK * BLOCK, area[1].stop, BLOCK)
            of_rows.append(_joined([self._part(area, top, left) for left in lefts], dim=3))
        return [level.repeat_interleave(self.repeats, dim=0) for level in _joined(of_rows, dim=2)]

    def _part(self, area: Area, top: int, left: int) -> Levels:
        """Cut out of a block what a window shows of it."""
        rows, columns = (
            slice(max(edge.start - start, 0), min(edge.stop - start, BLOCK))
            for edge, start in zip(area, (top, left), strict=True)
        )
        sizes = [height for _, height, _ in self.shapes]
        block = self._block(top, left)
        return [
            cut(level, enlarged((rows, columns), size, self.size[0])) for level, size in zip(block, sizes, strict=True)
        ]

    def _block(self, top: int, left: int) -> Levels:
        """Draw a block, unless it is one of the last."""
        if (top, left) not in self._blocks:
            self._blocks[top, left] = self._drawn(top, left)
        self._blocks.move_to_end((top, left))
        while len(self._blocks) > 1 and sum(map(_bytes, self._blocks.values())) > MAX_CACHE:
            self._blocks.popitem(last=False)
        return self._blocks[top, left]

    def _drawn(self, top: int, left: int) -> Levels:
        height, width = (
            min(start + BLOCK, length) - start for start, length in zip((top, left), self.size, strict=True)
        )
        shapes = [
            (1, channels, height * rows // self.size[0], width * columns // self.size[1])
            for channels, rows, columns in self.shapes
        ]
        wanted: list[list[Levels]] = []
        for seed in self.seeds:
            generator = torch.Generator(self.device).manual_seed(_block_seed(seed, top // BLOCK, left // BLOCK))
            drawn = [
                [torch.randn(shape, generator=generator, device=self.device) for shape in shapes]
                for _ in range(max(self.samples) + 1)
            ]
            wanted.append([drawn[number] for number in self.samples])
        return [
            torch.cat([of_seed[number][level] for number in range(len(self.samples)) for of_seed in wanted])
            for level in range(len(shapes))
        ]


def _block_seed(seed: int, row: int, column: int) -> int:
    """Make the seed of a block; the first one has the image's."""
    if row == column == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed} {row} {column}".encode()).digest()[:8], "big")


def _joined(parts: Sequence[Levels], dim: int) -> Levels:
    """Put levels beside each other, or below."""
    return parts[0] if len(parts) == 1 else [torch.cat(level, dim) for level in zip(*parts, strict=True)]


def _bytes(levels: Levels) -> int:
    return sum(level.nbytes for level in levels)
