"""Image files, in and out, as uint8 RGB (H, W, 3). Needs no torch."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from srflow_plugin.errors import UserError
from srflow_plugin.files import complete_or_absent

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error)  # Pillow's answers to damaged files
BITS_PER_SAMPLE = 258  # TIFF tag
PNG_START = b"\x89PNG\r\n\x1a\n"
STAMP = "srflow"  # keyword of a text in PNG files: what the image was made with


def find_images(folder: Path) -> list[Path]:
    """List the images in ``folder``, sorted by name."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name one with images ({', '.join(IMAGE_SUFFIXES)})")
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise UserError(f"{folder} has no images ({', '.join(IMAGE_SUFFIXES)})")
    return images


def read_bytes(path: Path) -> bytes:
    """Read a file; what keeps it from being read becomes a line."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; correct the path") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def open_image(data: bytes, name: str) -> Image.Image:
    """Decode an encoded image of any kind that Pillow reads.

    Raises:
        UserError: it is none, is damaged, or is so large that it may be meant to exhaust the memory.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
            image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(f"{name} has more than {Image.MAX_IMAGE_PIXELS or 0:,} pixels; cut it") from None
    except UnidentifiedImageError:
        raise UserError(f"{name} is not an image that can be read") from None
    except DAMAGED as error:
        raise UserError(f"{name} cannot be read: {error}") from None
    return image


def bits_of(image: Image.Image, data: bytes) -> int:
    """Bits a channel of an image in its file; Pillow gives 8 where a file has 16 and colour."""
    if data.startswith(PNG_START):
        return data[24]
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(BITS_PER_SAMPLE, (8,))))  # type: ignore[attr-defined]
    return 8


def read_image(path: Path) -> np.ndarray:
    """Read an image of 8 bits a channel without transparency, upright: uint8 RGB (H, W, 3).

    Raises:
        UserError: it cannot be read, or is of another kind, with what to do.
    """
    data = read_bytes(path)
    image = open_image(data, str(path))
    if bits_of(image, data) > 8:
        raise UserError(f"{path} has {bits_of(image, data)} bits a channel; convert it to 8")
    if image.mode in ("RGBA", "LA", "PA"):
        raise UserError(f"{path} has an alpha channel; flatten it")
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def write_image(path: Path, pixels: np.ndarray, stamp: str | None = None) -> None:
    """Write uint8 RGB (H, W, 3); the file appears when complete, or not at all.

    A PNG file may have a stamp, a text that :func:`read_stamp` reads.
    """
    with complete_or_absent(path) as unfinished:
        extra = {"pnginfo": png_text(stamp)} if stamp else {}
        Image.fromarray(pixels).save(unfinished, Image.registered_extensions()[path.suffix.lower()], **extra)


def png_text(stamp: str) -> PngInfo:
    """Make the stamp of a file that Pillow writes."""
    text = PngInfo()
    text.add_text(STAMP, stamp)
    return text


def read_stamp(path: Path) -> str | None:
    """Read the stamp of a PNG file, of any size, without its pixels; None where there is none."""
    start = STAMP.encode() + b"\0"
    try:
        with path.open("rb") as file:
            kind = b"" if file.read(len(PNG_START)) == PNG_START else b"IDAT"
            while kind != b"IDAT":  # the pixels
                length, kind = struct.unpack(">I4s", file.read(8))
                data = file.read(length + 4)[:-4] if kind == b"tEXt" else b""
                if data.startswith(start):
                    return data.removeprefix(start).decode("latin-1")
                if kind != b"tEXt":
                    file.seek(length + 4, io.SEEK_CUR)
    except (OSError, struct.error):
        return None
    return None
