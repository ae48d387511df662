"""Temperature by place: factors of it in [share, 1], the share where the LR image is flat and 1 where it has texture.

What a sample adds to a flat area looks like grain; in texture it looks like detail.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from srflow_plugin.errors import UserError

Adaptive = float | Tensor | None  # the share, a map of one's own, or the same temperature everywhere

REACH = 2  # LR pixels that count on each side of one
FLAT, TEXTURED = 2.0, 10.0  # standard deviations, in grey levels, up to which a place is one, and from which the other


def temperature_map(lq: Tensor, share: float) -> Tensor:
    """Compute the factor of the temperature at each pixel of LR images (B, 3, h, w) in [0, 1]: (B, 1, h, w).

    It is ``share + (1 - share) smoothstep((std - FLAT) / (TEXTURED - FLAT))``, with the standard deviation of the
    colours in the 5x5 pixels around.

    >>> temperature_map(torch.zeros(1, 3, 2, 2), 0.5).tolist()
    [[[[0.5, 0.5], [0.5, 0.5]]]]
    """
    textured = smoothstep((local_std(255 * lq.float()) - FLAT) / (TEXTURED - FLAT))
    return (share + (1 - share) * textured).to(lq)


def local_std(x: Tensor) -> Tensor:
    """Compute the standard deviation in the 5x5 pixels around each, over all channels: (B, C, h, w) -> (B, 1, h, w)."""
    variance = _around(x.square()) - _around(x).square()
    return variance.mean(1, keepdim=True).clamp(min=0).sqrt()


def smoothstep(x: Tensor) -> Tensor:
    """Rise from 0 to 1 where ``x`` does, smoothly."""
    x = x.clamp(0, 1)
    return x.square() * (3 - 2 * x)


def factors(lq: Iterator[Tensor], adaptive: float | Tensor) -> Iterator[Tensor]:
    """Give the factors of the temperature of LR images that come row after row, as many rows at a time.

    Args:
        lq: (B, 3, rows, w) each, from top to bottom; read ahead as far as a map reaches.
        adaptive: the share of flat areas, or all factors, (B or 1, 1, h, w).
    """
    return _rows_of(adaptive, lq) if isinstance(adaptive, Tensor) else _maps(lq, adaptive)


def _rows_of(given: Tensor, lq: Iterator[Tensor]) -> Iterator[Tensor]:
    first = 0
    for part in lq:
        yield given[:, :, first : first + part.shape[2]].to(part)
        first += part.shape[2]


def _maps(lq: Iterator[Tensor], share: float) -> Iterator[Tensor]:
    """Compute the map, each part of it once the rows below that it looks at are there."""
    seen: list[Tensor] = []
    above = 0  # rows that are seen, and whose map is given out
    waiting: list[int] = []  # numbers of rows whose map is not
    for part in chain[Tensor | None](lq, [None]):
        if part is not None:
            seen.append(part)
            waiting.append(part.shape[2])
        while waiting and (part is None or sum(waiting[1:]) >= REACH):
            rows = torch.cat(seen, 2)
            last = above + waiting.pop(0)
            yield temperature_map(rows[:, :, : last + REACH], share)[:, :, above:last]
            above = min(last, REACH)
            seen = [rows[:, :, last - above :]]


def check_adaptive(adaptive: Adaptive, shape: Sequence[int]) -> None:
    """Refuse what is neither a share nor a map of LR images (B, 3, h, w)."""
    if isinstance(adaptive, Tensor):
        images, _, height, width = shape
        if tuple(adaptive.shape) not in {(number, 1, height, width) for number in (1, images)}:
            batch = "1" if images == 1 else f"1 or {images}"
            raise UserError(f"adaptive must be ({batch}, 1, {height}, {width}), not {tuple(adaptive.shape)}")
        if not ((adaptive >= 0) & adaptive.isfinite()).all():
            raise UserError("adaptive must hold factors of the temperature: 0 or more, and finite")
    elif adaptive is not None and not 0 <= adaptive <= 1:
        raise UserError(f"adaptive must be from 0 to 1, or a map of factors, not {adaptive}")


def _around(x: Tensor) -> Tensor:
    """Average over the pixels around each; at a border over those that are there."""
    return F.avg_pool2d(x, 2 * REACH + 1, stride=1, padding=REACH, count_include_pad=False)
