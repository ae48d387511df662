"""Samples of a network: latents drawn, decoded whole or in tiles, and drawn again where they explode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from srflow_plugin.errors import UserError
from srflow_plugin.flow import Context
from srflow_plugin.sampling.explosions import count_exploded, resample_exploded
from srflow_plugin.sampling.tiling import decode_in_tiles, tile_side

Tile = int | Literal["auto"] | None


class Decoder(Protocol):
    """Network that turns latents and an LR image into an image, as SRFlowNet does."""

    scale: int
    lq_multiple: int

    def latent_shapes(self, h: int, w: int) -> list[tuple[int, int, int]]: ...

    def decode(self, latents: Sequence[Tensor], lq: Tensor) -> Tensor: ...

    def decode_features(self, latents: Sequence[Tensor], features: Sequence[Context]) -> Tensor: ...

    def padded_lq(self, lq: Tensor) -> Tensor: ...


class Samples(NamedTuple):
    """Images drawn from the distribution of a network.

    Attributes:
        images: (num_samples, B, 3, scale*h, scale*w), not clamped.
        exploded: number of the images that exploded somewhere as they were drawn, before any place was drawn again.
    """

    images: Tensor
    exploded: int


@torch.no_grad()
def draw(
    network: Decoder,
    lq: Tensor,
    temperature: float = 0.9,
    num_samples: int = 1,
    seed: int | None = None,
    *,
    tile: Tile = None,
    progress: bool = False,
    resample: float | None = None,
    features: Sequence[Context] | None = None,
) -> Samples:
    """Draw super-resolved images: latents from N(0, temperature^2 I), decoded. ``SRFlowNet.sample`` has the arguments.

    Places that explode are counted, and with ``resample`` they alone are decoded again.
    """
    _check(temperature, num_samples, tile, resample)
    latents = draw_latents(network.latent_shapes(*lq.shape[2:]), lq, temperature, num_samples, seed)
    padded = network.padded_lq(lq)
    side = tile_side(tile, padded, num_samples)

    def decode(latents: Sequence[Tensor], lq: Tensor, progress: bool = False) -> Tensor:
        if side is None:
            return network.decode(latents, lq)
        return decode_in_tiles(network.decode, latents, lq, network.scale, network.lq_multiple, side, progress)

    if side is None and features is not None:
        images = network.decode_features(latents, features)
    else:
        images = decode(latents, padded, progress)
    height, width = (network.scale * size for size in lq.shape[2:])
    exploded = count_exploded(images[:, :, :height, :width])
    if resample is not None:
        images = resample_exploded(decode, latents, images, padded, network.scale, network.lq_multiple, resample)
    return Samples(images[:, :, :height, :width].unflatten(0, (num_samples, -1)), exploded)


def draw_latents(
    shapes: Sequence[tuple[int, int, int]], lq: Tensor, temperature: float, num_samples: int, seed: int | None
) -> list[Tensor]:
    """Draw latents for each image of ``lq``: (num_samples * B, C, H, W) each, finest first.

    With a seed they are drawn on the CPU, in float32, sample after sample, the same for each image: the same seed is
    the same picture on every device, in every precision, alone or in a batch.
    """
    if seed is None:
        sizes = [(num_samples * len(lq), *shape) for shape in shapes]
        return [temperature * torch.randn(size, dtype=lq.dtype, device=lq.device) for size in sizes]
    generator = torch.Generator().manual_seed(seed)
    samples = [[torch.randn(1, *shape, generator=generator) for shape in shapes] for _ in range(num_samples)]
    levels = [torch.cat(level).repeat_interleave(len(lq), dim=0) for level in zip(*samples, strict=True)]
    return [temperature * level.to(lq) for level in levels]


def _check(temperature: float, num_samples: int, tile: Tile, resample: float | None) -> None:
    if not temperature >= 0 or num_samples < 1:
        raise UserError(f"temperature must be >= 0 and num_samples >= 1, not {temperature} and {num_samples}")
    if resample is not None and not 0 <= resample < 1:
        raise UserError(f"resample must be from 0 to below 1, not {resample}")
    if isinstance(tile, int) and tile < 1:
        raise UserError(f"tile must be 1 or more, not {tile}")
