"""Samples that explode: far from the training data the inverse of the affine layers can amplify without limit.

It happens in places, a few pixels wide at first. There the latents are drawn again at a lower temperature, and only
there the sample is decoded again; the rest stays as it was. Where the image of tau = 0 explodes, too, the network does
not know such an image, and the bicubic enlargement stands in.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from srflow_plugin.flow.windows import Area, cut, enlarged
from srflow_plugin.sampling.field import Field

LIMIT = 0.5  # beyond [0, 1]; images of tau = 0 overshoot by a quarter at most (docs/how-to/avoid_exploding_samples.md)
REACH = 4  # LR pixels around an exploded one that are drawn again
MAX_TRIES = 12
MANY = 0.25  # share of pixels: an image of which so many explode is none that the network knows


def exploded(images: Tensor) -> Tensor:
    """Mark where images (..., 3, H, W) are not finite or far outside [0, 1]: bool (..., H, W)."""
    return ~((images > -LIMIT) & (images < 1 + LIMIT)).all(dim=-3)


def count_exploded(images: Tensor) -> int:
    """Count the images (B, 3, H, W) that explode somewhere."""
    return int(exploded(images).flatten(1).any(1).sum())


def resample_exploded(field: Field, images: Tensor, first: int, factor: float, stand_in: bool = True) -> Tensor:
    """Decode again, in place, around the places where images of a field explode, until none does.

    There the latents' temperature is multiplied by ``factor``, and what they have an influence on is decoded again, as
    often as it takes; the last time the temperature is 0.

    Args:
        field: whose rows reach beyond the images' as far as their latents have an influence.
        images: (N, 3, scale * rows, scale * w) of it.
        first: LR row of the field that theirs begin with.
        factor: between 0 and 1.
        stand_in: make what explodes even then bicubic; else it stays exploded.

    Returns:
        How many LR pixels of each image became bicubic: (N,).
    """
    scale, replaced = field.network.scale, images.new_zeros(len(images), dtype=torch.long)
    above, rows = first - field.first, images.shape[2] // scale
    attempt = 0
    while True:
        where = exploded(images)
        broken = where.flatten(1).any(1).nonzero().squeeze(1)
        if not len(broken):
            break
        places = F.max_pool2d(where[broken, None].to(images.dtype), scale)
        around = _widened(F.pad(places, (0, 0, above, field.last - first - rows)), REACH)
        inside = slice(above, above + rows)
        if attempt == MAX_TRIES or field.is_calmest:
            for number, mask in zip(broken.tolist(), around[:, 0, inside] > 0, strict=True) if stand_in else ():
                replaced[number] = _enlarge(field, images, first, number, mask)
            break
        is_last = attempt == MAX_TRIES - 1 or where[broken].float().mean() > MANY
        field.calm(broken, around, 0.0 if is_last else factor)
        attempt = MAX_TRIES if is_last else attempt + 1
        changed = (_widened(around, field.overlap)[:, 0, inside] > 0).cpu()
        for number, mask in zip(broken.tolist(), changed, strict=True):
            for area in boxes(mask):
                field.decode(_down(area, first), images[number, None], first, number)
    return replaced


def _enlarge(field: Field, images: Tensor, first: int, number: int, mask: Tensor) -> int:
    """Replace the places of a mask (rows, w) by the bicubic enlargement; count them."""
    scale = field.network.scale
    for area in boxes(mask.cpu()):
        there = cut(images[number, None], enlarged(area, scale))
        marked = mask[area].repeat_interleave(scale, 0).repeat_interleave(scale, 1)
        there.copy_(torch.where(marked, field.bicubic(_down(area, first), number), there))
    return int(mask.sum())


def boxes(mask: Tensor) -> Iterator[Area]:
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


def _down(area: Area, by: int) -> Area:
    return _moved(area[0], by), area[1]


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def _widened(mask: Tensor, reach: int) -> Tensor:
    """Widen a mask (B, 1, h, w) of 0 and 1 by ``reach`` on all sides."""
    return F.max_pool2d(mask, 2 * reach + 1, stride=1, padding=reach)
