"""Photographs as people have them: grey, 16 bit, transparent, turned, with a colour profile."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from srflow_plugin.errors import UserError

ORIENTATION = 0x0112  # EXIF tag
BLED = 16  # pixels that colour goes out into what is transparent; a network sees little farther
# Tags of TIFF files that say where and how their pixels are stored.
STRUCTURE = {*range(254, 260), 262, 266, 273, *range(277, 280), 284, *range(288, 294), 301, *range(317, 331)}
STRUCTURE |= {*range(332, 348), *range(512, 533), 34675}
# Modes whose pixels are taken as they are; of each other mode that has transparency, the one that keeps it.
PLAIN_MODES = ("1", "L", "LA", "RGB", "RGBA")
WITH_ALPHA = {"La": "LA", "PA": "RGBA", "RGBa": "RGBA"}
TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BAD_EXIF = (OSError, ValueError, SyntaxError, TypeError, LookupError, AttributeError, ArithmeticError, struct.error)


class Photograph(NamedTuple):
    """An image, upright, and what belongs to it."""

    rgb: np.ndarray  # float32 (H, W, 3) in [0, 1]
    alpha: np.ndarray | None  # float32 (H, W) in [0, 1]
    is_grey: bool
    bits: int  # 8 or 16
    icc_profile: bytes | None
    exif: bytes | None

    @property
    def channels(self) -> int:
        """Number of channels in a file: 1 to 4."""
        return (1 if self.is_grey else 3) + (self.alpha is not None)

    def with_pixels(self, rgb: np.ndarray, alpha: np.ndarray | None) -> Photograph:
        """Make the same kind of image of other pixels, of any size, clipped to [0, 1]."""
        if self.is_grey:
            rgb = np.repeat(rgb.mean(2, keepdims=True), 3, axis=2)
        return self._replace(rgb=rgb.clip(0, 1), alpha=None if alpha is None else alpha.clip(0, 1))

    def quantised(self) -> np.ndarray:
        """Round the pixels to what a file has: uint8 or uint16, (H, W), (H, W, 2), (H, W, 3) or (H, W, 4)."""
        channels = self.rgb[..., :1] if self.is_grey else self.rgb
        if self.alpha is not None:
            channels = np.concatenate([channels, self.alpha[..., None]], axis=2)
        levels: np.ndarray = (channels * (2**self.bits - 1)).round().astype(np.uint8 if self.bits == 8 else np.uint16)
        return levels[..., 0] if levels.shape[2] == 1 else levels


def from_array(pixels: np.ndarray, icc_profile: bytes | None = None, exif: bytes | None = None) -> Photograph:
    """Take pixels (H, W), (H, W, 1 to 4; RGB) as uint8, uint16, or float in [0, 1].

    Raises:
        UserError: anything else.
    """
    kinds = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16, np.dtype(np.float32): 16, np.dtype(np.float64): 16}
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    if pixels.dtype not in kinds or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and not 1 <= pixels.shape[2] <= 4):
        raise UserError(
            f"an image of shape {pixels.shape} and type {pixels.dtype} is not understood; give (H, W) or (H, W, 1 to 4)"
            " as uint8, uint16, or float in 0 ... 1"
        )
    if 0 in pixels.shape:
        raise UserError(f"an image of shape {pixels.shape} has no pixels")
    if pixels.dtype.kind == "f":
        check_range(pixels)
    largest = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    channels = np.atleast_3d(pixels).astype(np.float32) / np.float32(largest)
    has_alpha = channels.shape[2] in (2, 4)
    colour = channels[..., :-1] if has_alpha else channels
    is_grey = colour.shape[2] == 1
    rgb = np.repeat(colour, 3, axis=2) if is_grey else colour
    return Photograph(rgb, channels[..., -1] if has_alpha else None, is_grey, kinds[pixels.dtype], icc_profile, exif)


def check_range(pixels: np.ndarray) -> None:
    """Refuse a float image that does not lie in 0 ... 1: nobody knows what is white in it."""
    low, high = float(pixels.min()), float(pixels.max())
    if not (np.isfinite([low, high]).all() and low >= 0 and high <= 1):
        raise UserError(
            f"the values of a float image must lie in 0 ... 1, not {low:g} ... {high:g}; divide by the largest possible"
        )


def from_pillow(image: Image.Image) -> Photograph:
    """Take a Pillow image of any mode, turned as its EXIF orientation says."""
    plain, keeps_profile = to_plain(upright(image))
    exif, _ = exif_of(image)
    return from_array(np.asarray(plain), image.info.get("icc_profile") if keeps_profile else None, exif)


def orientation_of(image: Image.Image) -> int:
    """Read the EXIF orientation, 1 to 8; 1 is upright, or not known."""
    try:
        orientation = int(image.getexif().get(ORIENTATION, 1))
    except BAD_EXIF:
        return 1
    return orientation if orientation in TURNS else 1


def exif_of(image: Image.Image) -> tuple[bytes | None, list[str]]:
    """Read the EXIF, as that of an image that has been turned upright, and notes of what is lost of it."""
    try:
        exif = image.getexif()
        if ORIENTATION in exif:
            exif[ORIENTATION] = 1
        for tag in STRUCTURE & exif.keys():
            del exif[tag]
        lost = ["its EXIF cannot be read and is left out"] if image.info.get("exif") and not len(exif) else []
        return exif.tobytes() if len(exif) else None, lost
    except BAD_EXIF as error:
        return None, [f"its EXIF cannot be read and is left out ({type(error).__name__}: {error})"]


def upright(image: Image.Image) -> Image.Image:
    """Turn a Pillow image as its EXIF orientation says."""
    turn = TURNS[orientation_of(image)]
    return image if turn is None else image.transpose(turn)


def cut_rows(photograph: Photograph, rows: slice) -> Photograph:
    """Cut rows out of a photograph."""
    alpha = None if photograph.alpha is None else photograph.alpha[rows]
    return photograph._replace(rgb=photograph.rgb[rows], alpha=alpha)


def together(parts: Sequence[Photograph]) -> Photograph:
    """Join rows of one photograph, some of which may be empty."""
    parts = [part for part in parts if len(part.rgb)]
    if len(parts) == 1:
        return parts[0]
    alphas = [part.alpha for part in parts if part.alpha is not None]
    rgb = np.concatenate([part.rgb for part in parts])
    return parts[0]._replace(rgb=rgb, alpha=np.concatenate(alphas) if alphas else None)


def to_plain(image: Image.Image) -> tuple[Image.Image | np.ndarray, bool]:
    """Bring a Pillow image to pixels that :func:`from_array` takes; say if they still are what its profile is for.

    Raises:
        UserError: its values have no known range.
    """
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16), True
    if image.mode == "I":
        pixels = np.asarray(image)
        if image.format != "PNG" and (pixels.min() < 0 or not 2**8 <= pixels.max() < 2**16):
            raise UserError("an image of 32 bit whole numbers has no known range; convert it to 16 bit, or to 8")
        return pixels.astype(np.uint16), True
    if image.mode == "F":
        check_range(np.asarray(image))
        return np.asarray(image), True
    if "transparency" in image.info and image.mode in ("1", "L", "P", "RGB"):
        return image.convert("LA" if image.mode in ("1", "L") else "RGBA"), True
    if image.mode in PLAIN_MODES:
        return image, True
    return image.convert(WITH_ALPHA.get(image.mode, "RGB")), image.mode in ("P", *WITH_ALPHA)


def bled(photograph: Photograph, rows: slice | None = None) -> np.ndarray:
    """Let colour go out into what is transparent, whose own colour nobody sees: float32 (H, W, 3).

    Editors store black there, or anything, and a network would draw an edge against it that shows where the picture
    becomes transparent. ``rows``: those that are wanted; the others are only looked at.
    """
    rows = rows or slice(None)
    if photograph.alpha is None:
        return photograph.rgb[rows]
    weight = photograph.alpha[..., None].copy()
    colour = photograph.rgb * weight
    for _ in range(BLED):
        if weight.all():
            break
        empty = weight == 0
        around, total = _box_sum(colour), _box_sum(weight)
        found = empty & (total > 0)
        total = np.where(found, total, 1)
        colour, weight = np.where(found, around / total, colour), np.where(found, 1, weight).astype(np.float32)
    known = weight > 0
    spread = np.divide(colour, weight, out=np.zeros_like(colour), where=known)
    return np.where(known, spread, photograph.rgb)[rows]


def _box_sum(image: np.ndarray) -> np.ndarray:
    """Sum 3 x 3 pixels of (H, W, C)."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    total: np.ndarray = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return total
