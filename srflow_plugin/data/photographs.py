"""Photographs as people have them: grey, 16 bit, transparent, turned, with a colour profile; in and out."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from srflow_plugin.errors import UserError
from srflow_plugin.files import complete_or_absent

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
        """The same kind of image with other pixels, of any size, clipped to [0, 1]."""
        if self.is_grey:
            rgb = np.repeat(rgb.mean(2, keepdims=True), 3, axis=2)
        return self._replace(rgb=rgb.clip(0, 1), alpha=None if alpha is None else alpha.clip(0, 1))

    def quantised(self) -> np.ndarray:
        """The pixels as a file has them: uint8 or uint16, (H, W), (H, W, 2), (H, W, 3) or (H, W, 4)."""
        channels = self.rgb[..., :1] if self.is_grey else self.rgb
        if self.alpha is not None:
            channels = np.concatenate([channels, self.alpha[..., None]], axis=2)
        levels = (channels * (2**self.bits - 1)).round().astype(np.uint8 if self.bits == 8 else np.uint16)
        return levels[..., 0] if levels.shape[2] == 1 else levels


def from_array(pixels: np.ndarray, icc_profile: bytes | None = None, exif: bytes | None = None) -> Photograph:
    """Pixels (H, W), (H, W, 1 to 4; RGB) as uint8, uint16, or float in [0, 1].

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
    """A Pillow image of any mode, turned as its EXIF orientation says."""
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
    """An image file of any kind that Pillow reads, 16 bit colour as well.

    Raises:
        UserError: it cannot be read.
    """
    try:
        data = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                photograph = from_pillow(image)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; correct the path") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(f"{path} has more than {Image.MAX_IMAGE_PIXELS or 0:,} pixels; cut it") from None
    except UnidentifiedImageError:
        raise UserError(f"{path} is not an image that can be read") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (OSError, ValueError, SyntaxError, struct.error, zlib.error) as error:  # Pillow's answers to damaged files
        raise UserError(f"{path} cannot be read: {error}") from None
    if photograph.bits == 8 and data.startswith((b"\x89PNG", b"II", b"MM")):  # Pillow drops half of 16 bit colour
        deep = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if deep is not None and deep.dtype == np.uint16 and deep.ndim == 3 and deep.shape[2] in (3, 4):
            if deep.shape[:2] != photograph.rgb.shape[:2]:
                raise UserError(
                    f"{path}: turn the image upright first; 16 bit colour with an orientation is not supported"
                )
            order = cv2.COLOR_BGR2RGB if deep.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
            photograph = from_array(cv2.cvtColor(deep, order), photograph.icc_profile, photograph.exif)
    return photograph


def write_png(path: Path, photograph: Photograph) -> None:
    """Write an image with its colour profile and EXIF; the file appears when complete."""
    pixels = photograph.quantised()
    if pixels.ndim == 3 and pixels.shape[2] == 2:  # OpenCV writes no grey with alpha
        pixels = np.concatenate([np.repeat(pixels[..., :1], 3, axis=2), pixels[..., 1:]], axis=2)
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    png = cv2.imencode(".png", pixels)[1].tobytes()
    header_end = 8 + 12 + 13  # signature; length, type and checksum of IHDR; IHDR
    extra = b""
    if photograph.icc_profile:
        extra += _chunk(b"iCCP", b"profile\0\0" + zlib.compress(photograph.icc_profile))
    if photograph.exif:
        extra += _chunk(b"eXIf", photograph.exif.removeprefix(b"Exif\0\0"))
    with complete_or_absent(path) as unfinished:
        unfinished.write_bytes(png[:header_end] + extra + png[header_end:])


def _chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
