"""Photographs as people have them: grey, 16 bit, transparent, turned, with a colour profile; in and out."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from srflow_plugin.errors import UserError
from srflow_plugin.files import complete_or_absent
from srflow_plugin.images.files import DAMAGED, PNG_START, STAMP, bits_of, open_image, png_text, read_bytes

ORIENTATION = 0x0112  # EXIF tag


class Photograph(NamedTuple):
    """An image, upright, and what belongs to it."""

    rgb: np.ndarray  # float32 (H, W, 3) in [0, 1]
    alpha: np.ndarray | None  # float32 (H, W) in [0, 1]
    is_grey: bool
    bits: int  # 8 or 16
    icc_profile: bytes | None
    exif: bytes | None

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
    if pixels.dtype.kind == "f" and not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
        raise UserError("a float image must lie in 0 ... 1; divide it by its largest possible value")
    largest = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    channels = np.atleast_3d(pixels).astype(np.float32) / np.float32(largest)
    has_alpha = channels.shape[2] in (2, 4)
    colour = channels[..., :-1] if has_alpha else channels
    is_grey = colour.shape[2] == 1
    rgb = np.repeat(colour, 3, axis=2) if is_grey else colour
    return Photograph(rgb, channels[..., -1] if has_alpha else None, is_grey, kinds[pixels.dtype], icc_profile, exif)


def from_pillow(image: Image.Image) -> Photograph:
    """Take a Pillow image of any mode, turned as its EXIF orientation says."""
    exif = image.getexif()
    icc_profile = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
    if ORIENTATION in exif:
        exif[ORIENTATION] = 1  # it is upright now
    if image.mode in ("I", "F"):
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() >= 2**16:
            raise UserError(f"an image of mode {image.mode} with values beyond 0 ... 65535 is not understood")
        pixels = pixels.round().astype(np.uint16)
    elif image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint16)
    else:
        if image.mode == "P":
            image = image.convert("RGBA" if "transparency" in image.info else "RGB")
        elif image.mode not in ("1", "L", "LA", "RGB", "RGBA"):
            has_alpha = image.mode in ("La", "PA", "RGBa")
            image, icc_profile = image.convert("RGBA" if has_alpha else "RGB"), None  # it was for the other colours
        pixels = np.asarray(image)
    return from_array(pixels, icc_profile, exif.tobytes() if len(exif) else None)


def read_photograph(path: Path) -> Photograph:
    """Read an image file of any kind that Pillow reads; 16 bit colour with OpenCV.

    Raises:
        UserError: it cannot be read.
    """
    data = read_bytes(path)
    image = open_image(data, str(path))
    try:
        photograph = from_pillow(image)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except DAMAGED as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if photograph.bits == 8 and bits_of(image, data) == 16:  # Pillow drops half of 16 bit colour
        deep = _decode_deep_colour(data, path)
        if deep.shape[:2] != photograph.rgb.shape[:2]:
            raise UserError(f"{path}: turn the image upright first; 16 bit colour with an orientation is not supported")
        photograph = from_array(deep, photograph.icc_profile, photograph.exif)
    return photograph


def _decode_deep_colour(data: bytes, path: Path) -> np.ndarray:
    """Decode 16 bit colour: uint16 (H, W, 3 or 4; RGB)."""
    try:
        import cv2
    except ImportError:
        raise UserError(f"{path} has 16 bits a channel, which needs OpenCV: pip install opencv-python") from None
    deep = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if deep is None or deep.dtype != np.uint16 or deep.ndim != 3:
        raise UserError(f"{path} has 16 bits a channel in a way that is not understood; convert it to 8")
    rgb: np.ndarray = cv2.cvtColor(deep, cv2.COLOR_BGR2RGB if deep.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    return rgb


def write_png(path: Path, photograph: Photograph, stamp: str | None = None) -> None:
    """Write an image with its colour profile and EXIF, and with a stamp; the file appears when complete."""
    pixels = photograph.quantised()
    with complete_or_absent(path) as unfinished:
        if pixels.dtype == np.uint16 and pixels.ndim == 3:
            unfinished.write_bytes(_deep_colour_png(pixels, photograph, stamp))
        else:
            extra = {
                "icc_profile": photograph.icc_profile,
                "exif": photograph.exif,
                "pnginfo": png_text(stamp) if stamp else None,
            }
            Image.fromarray(pixels).save(unfinished, "PNG", **{key: value for key, value in extra.items() if value})


def _deep_colour_png(pixels: np.ndarray, photograph: Photograph, stamp: str | None) -> bytes:
    """Encode uint16 (H, W, 2 to 4), which Pillow cannot, as a PNG file (ISO/IEC 15948)."""
    height, width, channels = pixels.shape
    rows = np.ascontiguousarray(pixels, ">u2").view(np.uint8).reshape(height, -1)
    rows = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))  # filter 2: the difference to the row above
    scanlines = np.insert(rows, 0, 2, axis=1)
    colour_type = {2: 4, 3: 2, 4: 6}[channels]
    chunks = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))]
    if photograph.icc_profile:
        chunks.append(_chunk(b"iCCP", b"profile\0\0" + zlib.compress(photograph.icc_profile)))
    if photograph.exif:
        chunks.append(_chunk(b"eXIf", photograph.exif.removeprefix(b"Exif\0\0")))
    if stamp:
        chunks.append(_chunk(b"tEXt", f"{STAMP}\0{stamp}".encode("latin-1")))
    chunks += [_chunk(b"IDAT", zlib.compress(scanlines.tobytes())), _chunk(b"IEND", b"")]
    return PNG_START + b"".join(chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    """Make a chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
