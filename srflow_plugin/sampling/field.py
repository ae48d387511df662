"""An LR image with its latents, of which rows go by: all that decoding any window in them needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from srflow_plugin.devices import sent
from srflow_plugin.flow import Context
from srflow_plugin.flow.windows import Area, Window, cut, enlarged, with_margin
from srflow_plugin.images.resize import bicubic_upscale
from srflow_plugin.sampling import graphs
from srflow_plugin.sampling.latents import GivenLatents, Latents
from srflow_plugin.sampling.temperature import Temperature, check_has_prior, is_learned, is_number

BICUBIC_REACH = 2  # LR pixels


class Decoder(Protocol):
    """Network that turns latents and an LR image into an image, as SRFlowNet does."""

    scale: int
    lq_multiple: int

    def latent_shapes(self, h: int, w: int) -> list[tuple[int, int, int]]: ...

    def decode(self, latents: Sequence[Tensor], lq: Tensor) -> Tensor: ...

    def decode_features(self, latents: Sequence[Tensor], features: Sequence[Context]) -> Tensor: ...

    def padded_lq(self, lq: Tensor) -> Tensor: ...


class Predictor(Protocol):
    """Network with a learned prior."""

    def features(self, lq: Tensor) -> Sequence[Context]: ...

    def learned_latents(self, features: Sequence[Context]) -> list[Tensor]: ...


class Field:
    """Rows ``first`` to ``last`` of LR images, and the temperature of their latents at each place.

    Images of the field are (N, 3, scale * rows, scale * w), N samples of B LR images, sample after sample.

    Args:
        network: decodes.
        lq: the LR images (B, 3, rows, w), row after row, of sizes that the network takes.
        latents: of all of them; of learned ones only the size and the samples count.
        temperature: to begin with. Learned latents are those of temperature 1: calmed, they come closer to 0.
        side: of the largest window that is decoded at once, without its margin.
        features: of the whole images, for windows that are the whole.
        factors: of the temperature to begin with, (B or 1, 1, rows, w), as many rows at a time as ``lq``. Default: 1.
    """

    overlap = 16  # LR pixels on each side of a window; docs/results/speed.md says what that is good for

    def __init__(
        self,
        network: Decoder,
        lq: Iterator[Tensor],
        latents: Latents | GivenLatents,
        temperature: Temperature,
        side: int,
        features: Sequence[Context] | None = None,
        factors: Iterator[Tensor] | None = None,
    ) -> None:
        self.network = network
        self.latents = latents
        self.height, self.width = latents.size
        self.side = side
        self.features = features
        self.first, self.last = 0, 0
        self._coming = lq
        self._factors = factors
        self._predictor: Predictor | None = check_has_prior(network) if is_learned(temperature) else None
        self._initial = temperature if is_number(temperature) else 1.0
        self._lq: Tensor
        self._temperature: Tensor  # (N, 1, rows, w)

    def move(self, first: int, last: int) -> None:
        """Let rows go by: those before ``first`` are forgotten, and all before ``last`` are there."""
        first, last = max(first, 0), min(last, self.height)
        parts, temperatures = ([self._lq], [self._temperature]) if self.last else ([], [])
        while self.last < last:
            lq = next(self._coming)
            self.last += lq.shape[2]
            parts.append(lq)
            number = len(self.latents.samples) * len(lq)
            temperatures.append(lq.new_full((number, 1, *lq.shape[2:]), self._initial))
            if self._factors is not None:
                factor = next(self._factors)
                temperatures[-1] *= factor.repeat(number // len(factor), 1, 1, 1)
        gone = first - self.first
        self._lq, self._temperature = (
            (rows[0] if len(rows) == 1 else torch.cat(rows, 2))[:, :, gone:] for rows in (parts, temperatures)
        )
        self.first = first

    def empty(self, rows: int) -> Tensor:
        """Make room for so many LR rows of the images: (N, 3, scale * rows, scale * w)."""
        scale = self.network.scale
        return self._lq.new_empty(len(self._temperature), self._lq.shape[1], scale * rows, scale * self.width)

    def decode(self, area: Area, images: Tensor, first: int, number: int | None = None) -> None:
        """Write the decoded pixels of LR rows and columns to ``images``, whose first LR row is ``first``.

        ``number``: of the N images the only one.
        """
        for rows in _parts(area[0], self.side):
            for columns in _parts(area[1], self.side):
                window = self._window((rows, columns))
                part = self._decoded(window.outer, number)
                place = enlarged((slice(rows.start - first, rows.stop - first), columns), self.network.scale)
                cut(images, place).copy_(cut(part, enlarged(window.inner_in_outer, self.network.scale)))

    def bicubic(self, area: Area, number: int) -> Tensor:
        """Enlarge LR rows and columns of one image bicubically: (1, 3, scale * rows, scale * columns)."""
        rows, columns = (
            with_margin(inner, length, BICUBIC_REACH)
            for inner, length in zip(area, (self.height, self.width), strict=True)
        )
        window = Window(*zip(rows, columns, strict=True))
        part = bicubic_upscale(self._lq_of(window.outer, number), self.network.scale)
        return cut(part, enlarged(window.inner_in_outer, self.network.scale))

    def calm(self, numbers: Tensor, where: Tensor, factor: float) -> None:
        """Multiply the temperature of images where a mask (n, 1, rows of the field, w) is 1."""
        calmer = self._temperature[numbers] * (1 - (1 - factor) * where)
        self._temperature = self._temperature.index_copy(0, numbers, calmer)

    @property
    def is_calmest(self) -> bool:
        """Flag: the temperature is 0 everywhere."""
        return not self._initial

    def _window(self, area: Area) -> Window:
        rows, columns = (
            with_margin(inner, length, self.overlap, self.network.lq_multiple)
            for inner, length in zip(area, (self.height, self.width), strict=True)
        )
        return Window(*zip(rows, columns, strict=True))

    def _decoded(self, area: Area, number: int | None) -> Tensor:
        temperature = cut(self._temperature, self._here(area))
        if number is not None:
            temperature = temperature[number, None]
        whole = number is None and area == (slice(0, self.height), slice(0, self.width))
        features = self.features if whole else None
        if self._predictor is not None:
            features = self._predictor.features(self._lq_of(area, number)) if features is None else features
            predicted = self._predictor.learned_latents(features)  # the same for every sample of an image
            latents = [level.repeat(len(temperature) // len(level), 1, 1, 1) for level in predicted]
        else:
            latents = [sent(level, self._lq) for level in self.latents.window(area)]
            latents = latents if number is None else [level[number, None] for level in latents]
        latents = [_spread(temperature, level.shape[2:]) * level for level in latents]
        if features is not None:
            return self.network.decode_features(latents, features)
        return graphs.decode(self.network, latents, self._lq_of(area, number))

    def _lq_of(self, area: Area, number: int | None) -> Tensor:
        lq = cut(self._lq, self._here(area))
        return lq if number is None else lq[number % len(lq), None]

    def _here(self, area: Area) -> Area:
        return slice(area[0].start - self.first, area[0].stop - self.first), area[1]


def _parts(edge: slice, side: int) -> Iterator[slice]:
    """Cut rows or columns at multiples of ``side``."""
    for start in range(edge.start // side * side, edge.stop, side):
        yield slice(max(start, edge.start), min(start + side, edge.stop))


def _spread(temperature: Tensor, size: tuple[int, ...]) -> Tensor:
    """Give a level of latents its temperatures; several places that become one, the lowest of them."""
    if size[0] >= temperature.shape[2]:
        return F.interpolate(temperature, size, mode="nearest")
    return -F.adaptive_max_pool2d(-temperature, size)
