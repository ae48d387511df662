"""Samples that explode: far from what a network has learnt, the inverse of its affine layers magnifies without end.

It happens in places, a few pixels wide at first. There the latents are drawn again at a lower temperature, and only
there the sample is decoded again; the rest stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from srflow_plugin.archs.tiling import OVERLAP, decode_window
from srflow_plugin.flow.windows import Window, with_margin

LIMIT = 0.5  # beyond [0, 1]; images of tau = 0 overshoot by a quarter at most (docs/exploding_samples.md)
REACH = 4  # LR pixels around an exploded one that are drawn again
MAX_TRIES = 12


def exploded(images: Tensor) -> Tensor:
    """Where images (..., 3, H, W) are not finite or far outside [0, 1]: bool (..., H, W)."""
    return ~((images > -LIMIT) & (images < 1 + LIMIT)).all(dim=-3)


def count_exploded(images: Tensor) -> int:
    """How many of the images (B, 3, H, W) explode somewhere."""
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
    """``images`` = decode(latents, lq), where none explodes.

    Around exploded places the latents are multiplied by ``factor``, a lower temperature, and what they have an
    influence on is decoded again, as often as it takes; the last time they are set to 0.

    Args:
        decode: of a part of one image.
        latents: finest first, each (B, C, H, W).
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
        changed = (_widened(around, OVERLAP)[:, 0] > 0).cpu().numpy()
        for number, mask in zip(broken.tolist(), changed, strict=True):
            own = [latent[number, None] for latent in latents]
            for window in _windows_around(mask, multiple, OVERLAP):
                decode_window(decode, own, lq[number % len(lq), None], window, images[number, None], scale)
    return images


def _windows_around(mask: np.ndarray, multiple: int, margin: int) -> Iterator[Window]:
    """A window for each connected part of a mask (h, w), with a margin; what is computed ends at multiples."""
    for part in ndimage.find_objects(ndimage.label(mask)[0]):
        rows, columns = (with_margin(*axis, margin, multiple) for axis in zip(part, mask.shape, strict=True))
        yield Window(*zip(rows, columns, strict=True))


def _widened(mask: Tensor, reach: int) -> Tensor:
    """``mask`` (B, 1, h, w) of 0 and 1, and all that is within ``reach`` of it."""
    return F.max_pool2d(mask, 2 * reach + 1, stride=1, padding=reach)
