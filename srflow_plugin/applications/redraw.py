"""Draw a painted part of a picture anew, and leave the rest as it is, to the bit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from srflow_plugin.applications.upscale import RESAMPLE
from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.errors import UserError
from srflow_plugin.flow.windows import Area, Window, cut, enlarged, windows
from srflow_plugin.images.photographs import Photograph, bled
from srflow_plugin.images.resize import bicubic_downscale
from srflow_plugin.images.rows import read_photograph
from srflow_plugin.images.tensors import to_array, to_tensor
from srflow_plugin.progress import tell
from srflow_plugin.sampling.explosions import boxes, exploded, resample_exploded
from srflow_plugin.sampling.field import Field
from srflow_plugin.sampling.latents import GivenLatents

SIDE = 256  # LR pixels of a painted region that are encoded and decoded at once; they bound the memory
FEATHER = 2  # LR pixels inside the mask's border over which old latents become new ones
FADE = 2  # times as fast the old pixels become new ones
PAINTED = 0.5  # of white, from where on a pixel of a mask counts


class Redrawn(NamedTuple):
    """Picture of which a part is drawn anew.

    Attributes:
        image: (1, 3, H, W) in [0, 1].
        kept: painted pixels that stay as they were: what comes in their place explodes at every temperature.
    """

    image: Tensor
    kept: int


class RedrawnPhotograph(NamedTuple):
    """Photograph of which a part is drawn anew.

    Attributes:
        photograph: of the same size and kind.
        changed: number of pixels that differ from before.
        notes: lines on what was painted and yet is as before.
    """

    photograph: Photograph
    changed: int
    notes: list[str]


class Brush(NamedTuple):
    """Way to draw: new latents of a temperature and a generator, or with ``factor`` the old ones times it."""

    temperature: float
    factor: float | None
    generator: torch.Generator

    def draw(self, shapes: Sequence[tuple[int, int, int]]) -> list[Tensor]:
        """Draw new latents (1, C, h, w), on the CPU: the same on every device."""
        return [self.temperature * torch.randn(1, *shape, generator=self.generator) for shape in shapes]

    def mix(self, old: Tensor, new: Tensor, weight: Tensor) -> Tensor:
        """Go from old latents, where ``weight`` (1, 1, h, w) is 0, to new ones, along an arc: variances stay."""
        if self.factor is not None:
            return old * (1 + weight * (self.factor - 1))
        angle = weight * (math.pi / 2)
        return angle.cos() * old + angle.sin() * new


def redraw(
    net: SRFlowNet,
    image: Tensor,
    lq: Tensor,
    mask: Tensor,
    temperature: float = 0.8,
    seed: int = 0,
    factor: float | None = None,
) -> Tensor:
    """Draw what is painted in an HR image anew; all other pixels stay to the bit.

    The image becomes latents, those below the mask are drawn from N(0, temperature^2), and the image is decoded again:
    only the windows around the painted regions, each with its surroundings. Inside the mask's border, over two LR
    pixels, the old picture becomes the new one, so that no edge shows. A line on standard error says how many painted
    pixels stay as they were, because the network explodes there at every temperature.

    Args:
        net: in eval mode.
        image: (1, 3, scale*h, scale*w) in [0, 1]: a sample, or any picture.
        lq: (1, 3, h, w), its LR image.
        mask: (scale*h, scale*w) or (h, w), bool, or from 0 to 1: from 0.5 on a pixel is painted.
        temperature: of what is drawn.
        seed: of what is drawn; the same gives the same picture.
        factor: keep the latents that are there, times this: below 1 calmer, above 1 livelier. Nothing is drawn then.

    Returns:
        (1, 3, scale*h, scale*w) in [0, 1], where ``image`` is.

    Raises:
        UserError: nothing is painted, sizes do not fit, the network cannot encode the image, or an argument is none.
    """
    result = draw_again(net, image, lq, mask, temperature, seed, factor)
    if result.kept:
        tell(kept_line(result.kept))
    return result.image


@torch.no_grad()
def draw_again(
    net: SRFlowNet,
    image: Tensor,
    lq: Tensor,
    mask: Tensor,
    temperature: float = 0.8,
    seed: int = 0,
    factor: float | None = None,
) -> Redrawn:
    """Do what :func:`redraw` does, and count what could not be drawn."""
    _check(net, image, lq, temperature, factor)
    painted = _full_size(mask, lq, net.scale)
    brush = Brush(temperature, factor, torch.Generator().manual_seed(seed))
    result, kept = image.clone(), 0
    for region in _regions(painted, net.scale, net.lq_multiple):
        height, width = (edge.stop - edge.start for edge in region)
        new = brush.draw(net.latent_shapes(height, width))
        large = enlarged(region, net.scale)
        old, old_lq, target = cut(image, large), cut(lq, region), cut(result, large)
        share = _feathered(cut(painted, large), FEATHER * net.scale).to(image)
        for window in _windows(height, width, net.lq_multiple):
            outer, inner = enlarged(window.outer, net.scale), enlarged(window.inner_in_outer, net.scale)
            noise = [cut(latent, enlarged(window.outer, latent.shape[2], height)) for latent in new]
            drawn, failed = _drawn(net, cut(old, outer), cut(old_lq, window.outer), cut(share, outer), brush, noise)
            cut(target, enlarged(window.inner, net.scale)).copy_(cut(drawn, inner))
            kept += int(cut(failed, inner).sum())
    return Redrawn(result, kept)


def redraw_photograph(
    net: SRFlowNet,
    photograph: Photograph,
    mask: np.ndarray,
    lq: Photograph | None = None,
    temperature: float = 0.8,
    seed: int = 0,
    factor: float | None = None,
) -> RedrawnPhotograph:
    """Draw what is painted in a photograph anew; depth, transparency, profile and all other pixels stay.

    Rows and columns at its end that make no whole LR pixel stay, too.

    Args:
        net, temperature, seed, factor: as :func:`redraw` takes them.
        photograph: HR.
        mask: bool, of its size (H, W) or of its LR image's.
        lq: its LR image. Default: MATLAB's bicubic downscale.
    """
    scale = net.scale
    height, width = (size - size % scale for size in photograph.rgb.shape[:2])
    if not height or not width:
        raise UserError(f"the picture is smaller than {scale} pixels")
    rgb = np.ascontiguousarray(bled(photograph)[:height, :width])
    small = lq.rgb if lq else bicubic_downscale((255 * rgb).round().astype(np.uint8), scale)
    _check_mask(mask, photograph.rgb.shape[:2], (height // scale, width // scale))
    used = mask[:height, :width]
    beyond = int(mask.sum() - used.sum())
    if beyond and not used.any():
        raise UserError(f"only the last rows or columns are painted, which make no whole {scale}x{scale} pixels")
    image, kept = draw_again(
        net, to_tensor(rgb), to_tensor(small), torch.from_numpy(np.ascontiguousarray(used)), temperature, seed, factor
    )
    pixels, drawn = photograph.rgb.copy(), to_array(image[0])
    is_new = (drawn != rgb).any(2)
    pixels[:height, :width][is_new] = drawn[is_new]
    result = photograph.with_pixels(pixels, photograph.alpha)
    changed = (_levels(result) != _levels(photograph)).any(2)
    notes = [kept_line(kept)] if kept else []
    if beyond:
        notes.append(f"{beyond} painted pixels stay: they lie beyond the last whole {scale}x{scale} pixels")
    return RedrawnPhotograph(result, int(changed.sum()), notes)


def read_mask(path: Path) -> np.ndarray:
    """Read a mask: bool (H, W), true where it is white, or opaque if it is transparent anywhere.

    Raises:
        UserError: it cannot be read, or nothing is painted.
    """
    mask = read_photograph(path)
    has_holes = mask.alpha is not None and mask.alpha.min() < PAINTED
    values = mask.alpha if has_holes and mask.alpha is not None else mask.rgb.mean(2)
    painted: np.ndarray = values >= PAINTED
    if not painted.any():
        raise UserError(f"{path}: nothing is painted; its lightest pixel is {values.max():.0%} white, 50% is needed")
    return painted


def kept_line(kept: int) -> str:
    """Say that pixels could not be drawn."""
    return (
        f"{kept} painted pixels stay as they were: the network explodes there at every temperature; paint more, or "
        "elsewhere (docs/how-to/avoid_exploding_samples.md)"
    )


def _check(net: SRFlowNet, image: Tensor, lq: Tensor, temperature: float, factor: float | None) -> None:
    if image.ndim != 4 or lq.ndim != 4 or len(image) != 1 or len(lq) != 1:
        raise UserError(f"one image at a time: give (1, 3, H, W), not {tuple(image.shape)} and {tuple(lq.shape)}")
    if image.shape[2:] != torch.Size(net.scale * size for size in lq.shape[2:]):
        expected = " and ".join(f"{size[3]}x{size[2]}" for size in (image.shape, lq.shape))
        raise UserError(f"picture and LR image have {expected} pixels; the network is of scale {net.scale}")
    if not (image.isfinite().all() and image.min() >= 0 and image.max() <= 1):
        raise UserError("the picture must lie in 0 ... 1")
    if not 0 <= temperature < math.inf or (factor is not None and not 0 <= factor < math.inf):
        raise UserError(f"temperature and factor must be 0 or more, not {temperature} and {factor}")


def _full_size(mask: Tensor, lq: Tensor, scale: int) -> Tensor:
    """Take a mask of the HR or the LR image's size: bool (1, 1, H, W)."""
    height, width = lq.shape[2:]
    _check_mask(mask, (scale * height, scale * width), (height, width))
    painted = mask >= PAINTED if mask.is_floating_point() else mask.bool()
    if not painted.any():
        raise UserError("nothing is painted: the mask is empty")
    factor = scale if mask.shape == lq.shape[2:] else 1
    return painted.repeat_interleave(factor, 0).repeat_interleave(factor, 1)[None, None]


def _check_mask(mask: Tensor | np.ndarray, size: Sequence[int], lq_size: Sequence[int]) -> None:
    """Refuse a mask that has neither the size of the picture nor that of its LR image."""
    if tuple(mask.shape) not in (tuple(size), tuple(lq_size)):
        found, picture, small = ("x".join(map(str, reversed(shape))) for shape in (mask.shape, size, lq_size))
        raise UserError(f"the mask has {found} pixels; the picture has {picture}, its LR image {small}")


def _feathered(painted: Tensor, width: int) -> Tensor:
    """Weigh painted pixels: from near 0 beside the others to 1 at ``width`` pixels from them, or in a stroke's middle.

    At the picture's own border there is no seam.
    """
    outside = 1 - painted.float()
    depth = torch.zeros_like(outside)
    for _ in range(width):
        depth += 1 - outside
        outside = _widened(outside, 1)
    return depth / _widened(depth, width - 1).clamp(min=1)


def _regions(painted: Tensor, scale: int, multiple: int) -> Iterator[Area]:
    """Cover the painted pixels and their surroundings with rows and columns of the LR image, at multiples."""
    coarse = F.max_pool2d(painted.float(), scale * multiple, ceil_mode=True)
    near = _widened(coarse, -(-Field.overlap // multiple))
    for rows, columns in boxes(near[0, 0] > 0):
        yield enlarged((rows, columns), multiple)


def _windows(height: int, width: int, multiple: int) -> Iterator[Window]:
    side, overlap = (multiple * -(-size // multiple) for size in (SIDE, Field.overlap))
    yield from windows(height, width, side, overlap)


def _drawn(
    net: SRFlowNet, old: Tensor, lq: Tensor, weight: Tensor, brush: Brush, new: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Draw one window anew: the picture in it, (1, 3, H, W), and where it stays since it explodes, (1, 1, H, W)."""
    if not weight.any():
        return old, weight > 0
    own, own_lq, own_weight = (x.to(next(net.parameters()).device) for x in (old, lq, weight))
    padded_lq = net.padded_lq(own_lq)
    height, width = (net.scale * size for size in padded_lq.shape[2:])
    padded_weight = F.pad(own_weight, (0, width - weight.shape[3], 0, height - weight.shape[2]), "replicate")
    features = net.features(own_lq)
    latents, _ = net.encode(own, own_lq, features)
    if not all(latent.isfinite().all() for latent in latents):
        raise UserError("the network cannot encode the picture around what is painted: it is too unlike what it knows")
    mixed = [
        brush.mix(latent, noise.to(latent), F.adaptive_max_pool2d(padded_weight, latent.shape[2:]))
        for latent, noise in zip(latents, new, strict=True)
    ]
    size = padded_lq.shape[2], padded_lq.shape[3]
    field = Field(net, iter([padded_lq]), GivenLatents(mixed, size), 1.0, max(size))
    field.move(0, size[0])
    image = net.decode(mixed, padded_lq, features).where(padded_weight > 0, 0)  # only what is painted may explode
    resample_exploded(field, image, 0, RESAMPLE, stand_in=False)
    image = image[:, :, : old.shape[2], : old.shape[3]].to(old)
    failed = exploded(image)[:, None] & (weight > 0)
    share = (FADE * weight).clamp(max=1).masked_fill(failed, 0)
    return torch.where(share > 0, old.lerp(image.nan_to_num(), share).clamp(0, 1), old), failed


def _widened(mask: Tensor, reach: int) -> Tensor:
    """Widen a map (1, 1, h, w) by ``reach`` on all sides."""
    rows = F.max_pool2d(mask, (2 * reach + 1, 1), stride=1, padding=(reach, 0))
    return F.max_pool2d(rows, (1, 2 * reach + 1), stride=1, padding=(0, reach))


def _levels(photograph: Photograph) -> np.ndarray:
    return np.atleast_3d(photograph.quantised())
