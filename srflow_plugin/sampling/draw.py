"""Samples of a network: latents drawn, decoded whole or in tiles, and drawn again where they explode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, tee
from typing import NamedTuple

import torch
from torch import Tensor

from srflow_plugin.errors import UserError
from srflow_plugin.flow import Context
from srflow_plugin.sampling.adaptive import Adaptive, check_adaptive, factors
from srflow_plugin.sampling.field import Decoder, Field
from srflow_plugin.sampling.latents import CPU, Latents
from srflow_plugin.sampling.temperature import Temperature
from srflow_plugin.sampling.temperature import check as check_temperature
from srflow_plugin.sampling.tiling import Band, Tile, draw_bands, tile_side

SEEDS = -(2**63), 2**64  # what torch takes


class Samples(NamedTuple):
    """Images drawn from the distribution of a network.

    Attributes:
        images: (num_samples, B, 3, scale*h, scale*w), not clamped.
        wild: bool (num_samples * B,), those that exploded somewhere as they were drawn, before any place was drawn
            again.
        bicubic: (num_samples * B,), LR pixels that exploded at tau = 0, too, and are bicubic; only with ``resample``.
    """

    images: Tensor
    wild: Tensor
    bicubic: Tensor

    @property
    def exploded(self) -> int:
        """Number of the images that exploded; asking for it waits for the device."""
        return int(self.wild.sum())

    @property
    def replaced(self) -> int:
        """Number of LR pixels that are bicubic; asking for it waits for the device."""
        return int(self.bicubic.sum())


@torch.no_grad()
def draw(
    network: Decoder,
    lq: Tensor,
    temperature: Temperature = 0.9,
    num_samples: int = 1,
    seed: int | None = None,
    *,
    only: int | None = None,
    tile: Tile = None,
    progress: bool = False,
    resample: float | None = None,
    features: Sequence[Context] | None = None,
    adaptive: Adaptive = None,
) -> Samples:
    """Draw super-resolved images: latents from N(0, temperature^2 I), decoded. ``SRFlowNet.sample`` has the arguments.

    Places that explode are counted, and with ``resample`` they alone are decoded again.
    """
    count, (height, width) = num_samples if only is None else 1, lq.shape[2:]
    bands = draw_rows(
        network,
        [lq],
        lq.shape,
        temperature,
        num_samples,
        seed,
        only=only,
        tile=tile,
        progress=progress,
        resample=resample,
        features=features,
        adaptive=adaptive,
    )
    images, wild, bicubic, row = lq, lq.new_zeros((), dtype=torch.bool), lq.new_zeros((), dtype=torch.long), 0
    for band in bands:
        wild, bicubic = wild | band.exploded, bicubic + band.replaced
        rows = band.images.shape[2]
        if rows == network.scale * height:
            images = band.images
            break
        if not row:
            images = band.images.new_empty(*band.images.shape[:2], network.scale * height, network.scale * width)
        images[:, :, row : row + rows] = band.images
        row += rows
    return Samples(images.unflatten(0, (count, -1)), wild, bicubic)


def draw_rows(
    network: Decoder,
    lq: Iterable[Tensor],
    shape: Sequence[int],
    temperature: Temperature = 0.9,
    num_samples: int = 1,
    seed: int | None = None,
    *,
    only: int | None = None,
    tile: Tile = None,
    progress: bool = False,
    resample: float | None = None,
    features: Sequence[Context] | None = None,
    adaptive: Adaptive = None,
) -> Iterator[Band]:
    """Draw the samples of LR images that come row after row, and give them out row after row.

    Args:
        network: of the samples.
        lq: (B, 3, rows, w) each, from top to bottom, on the network's device; all but the last have a multiple of
            ``network.lq_multiple`` rows.
        shape: (B, 3, h, w) of the whole.
        temperature, num_samples, seed, only, tile, progress, resample, features, adaptive: of ``SRFlowNet.sample``.

    Raises:
        UserError: a number is impossible; before anything is drawn.
    """
    check_temperature(temperature, network)
    _check(num_samples, seed, only, tile, resample)
    check_adaptive(adaptive, shape)
    parts = map(network.padded_lq, lq)
    first = next(parts)
    samples = range(num_samples) if only is None else range(only, only + 1)
    multiple, (images, _, *size) = network.lq_multiple, shape
    padded = tuple(-(-length // multiple) * multiple for length in size)
    seeds = torch.randint(2**63 - 1, (images,), generator=torch.default_generator).tolist() if seed is None else [seed]
    # What nobody can ask for again need not be the same everywhere.
    device = first.device if seed is None and first.is_cuda else CPU
    latents = Latents(network.latent_shapes(*size), (padded[0], padded[1]), seeds, images, samples, device)
    side = tile_side(tile, [*shape[:2], *padded], len(samples), network.scale, first.device) or max(padded)
    side = -(-side // multiple) * multiple
    rows: Iterator[Tensor] = chain([first], parts)
    by_place = None
    if adaptive is not None:
        rows, ahead = tee(rows)
        by_place = factors(ahead, network.padded_lq(adaptive) if isinstance(adaptive, Tensor) else adaptive)
    field = Field(network, rows, latents, temperature, side, features, by_place)
    return draw_bands(field, (size[0], size[1]), resample, progress)


def _check(num_samples: int, seed: int | None, only: int | None, tile: Tile, resample: float | None) -> None:
    if num_samples < 1:
        raise UserError(f"num_samples must be 1 or more, not {num_samples}")
    if seed is not None and not SEEDS[0] <= seed < SEEDS[1]:
        raise UserError(f"seed must be a whole number of 64 bits, not {seed}")
    if only is not None and only < 0:
        raise UserError(f"only must be the number of a sample, 0 or more, not {only}")
    if resample is not None and not 0 <= resample < 1:
        raise UserError(f"resample must be from 0 to below 1, not {resample}")
    if isinstance(tile, int) and tile < 1:
        raise UserError(f"tile must be 1 or more, not {tile}")
