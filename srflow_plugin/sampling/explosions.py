"""Samples that explode: far from the training data the inverse of the affine layers can amplify without limit.

It happens in places, a few pixels wide at first. There the latents are drawn again at a lower temperature, and only
there the sample is decoded again; the rest stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor

from srflow_plugin.flow.windows import Window, with_margin
from srflow_plugin.sampling.tiling import OVERLAP, decode_window

LIMIT = 0.5  # beyond [0, 1]; images of tau = 0 overshoot by a quarter at most (docs/exploding_samples.md)
REACH = 4  # LR pixels around an exploded one that are drawn again
MAX_TRIES = 12


def exploded(images: Tensor) -> Tensor:
    """Mark where images (..., 3, H, W) are not finite or far outside [0, 1]: bool (..., H, W)."""
    return ~((images > -LIMIT) & (images < 1 + LIMIT)).all(dim=-3)


def count_exploded(images: Tensor) -> int:
    """Count the images (B, 3, H, W) that explode somewhere."""
    return int(exploded(images).flatten(1).any(1).sum())


def resample_exploded(
    decode: Callable[[list[Tensor], Tensor], Tensor],
    latents: Sequence[Tensor],
    images: Tensor,
    lq: Tensor,
    scale: int,
    multiple: int,
    factor: float,
) -> Tensor:
    """Decode again, around the places where ``images`` = decode(latents, lq) explode, until none does.

    There the latents are multiplied by ``factor``, a lower temperature, and what they have an influence on is decoded
    again, as often as it takes; the last time they are set to 0.

    Args:
        decode: of a part of one image.
        latents: finest first, each (B, C, h, w).
        images: (B, 3, scale*h, scale*w).
        lq: (b, 3, h, w), each for B / b images in turn; h and w are multiples of ``multiple``.
        scale, multiple, factor: of ``images`` to ``lq``; of the sizes that ``decode`` takes; between 0 and 1.

    Returns:
        (B, 3, scale*h, scale*w); exploded only where tau = 0 does.
    """
    images, latents = images.clone(), list(latents)
    for attempt in range(1, MAX_TRIES + 1):
        where = exploded(images)
        broken = where.flatten(1).any(1).nonzero().squeeze(1)
        if not len(broken):
            break
        around = _widened(F.max_pool2d(where[broken, None].to(images.dtype), scale), REACH)
        loss = 1 - factor if attempt < MAX_TRIES else 1.0
        for level, latent in enumerate(latents):
            calmer = latent[broken] * (1 - loss * F.adaptive_max_pool2d(around, latent.shape[2:]))
            latents[level] = latent.index_copy(0, broken, calmer)
        changed = (_widened(around, OVERLAP)[:, 0] > 0).cpu()
        for number, mask in zip(broken.tolist(), changed, strict=True):
            own = [latent[number, None] for latent in latents]
            for window in _windows_around(mask, multiple, OVERLAP):
                decode_window(decode, own, lq[number % len(lq), None], window, images[number, None], scale)
    return images


def _windows_around(mask: Tensor, multiple: int, margin: int) -> Iterator[Window]:
    """Cover the places of a mask (h, w) with windows with a margin; what is computed ends at multiples."""
    for part in boxes(mask):
        rows, columns = (with_margin(*axis, margin, multiple) for axis in zip(part, mask.shape, strict=True))
        yield Window(*zip(rows, columns, strict=True))


def boxes(mask: Tensor) -> Iterator[tuple[slice, slice]]:
    """Cover what is true in a mask (h, w) with boxes, cut apart along empty rows and columns as far as these go.

    >>> import torch
    >>> list(boxes(torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.bool)))
    [(slice(0, 1, None), slice(0, 2, None)), (slice(2, 3, None), slice(3, 4, None))]
    """
    parts = [(rows, columns) for rows in _runs(mask.any(1)) for columns in _runs(mask[rows].any(0))]
    for rows, columns in parts:
        if len(parts) == 1:
            yield rows, columns
        else:
            for inner_rows, inner_columns in boxes(mask[rows, columns]):
                yield _moved(inner_rows, rows.start), _moved(inner_columns, columns.start)


def _runs(flags: Tensor) -> list[slice]:
    """Find the stretches of a vector that are true without a gap."""
    edges = F.pad(flags.int(), (1, 1)).diff().nonzero().squeeze(1).tolist()
    return [slice(first, last) for first, last in zip(edges[::2], edges[1::2], strict=True)]


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def _widened(mask: Tensor, reach: int) -> Tensor:
    """Widen a mask (B, 1, h, w) of 0 and 1 by ``reach`` on all sides."""
    return F.max_pool2d(mask, 2 * reach + 1, stride=1, padding=reach)
