"""Image files, in and out, as uint8 RGB (H, W, 3). Needs no torch."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from srflow_plugin.errors import UserError
from srflow_plugin.files import complete_or_absent

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp")
# Pillow's answers to damaged files.
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, TypeError, KeyError, IndexError, struct.error, zlib.error)
BITS_PER_SAMPLE = 258  # TIFF tag
# Pillow opens them, but as pages to be drawn by other programs, films, or tables.
NO_PIXELS = {".eps", ".ps", ".wmf", ".emf", ".mpg", ".mpeg", ".fit", ".fits", ".h5", ".hdf", ".grib", ".bufr", ".fli"}
ENDINGS_SHOWN = 5
PNG_START = b"\x89PNG\r\n\x1a\n"
SOFTWARE = 305  # EXIF tag
STAMP = "srflow"  # keyword of a text in PNG files: what the image was made with


def is_image_file(path: Path) -> bool:
    """Tell by its name that a file is an image, and not one that a system has hidden beside, such as ``._a.png``."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def find_images(folder: Path) -> list[Path]:
    """List the images in ``folder``, sorted by name."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name one with images ({', '.join(IMAGE_SUFFIXES)})")
    images = sorted(filter(is_image_file, folder.iterdir()))
    if not images:
        raise UserError(f"{folder} has no images ({', '.join(IMAGE_SUFFIXES)})")
    return images


def by_ending(paths: Iterable[Path]) -> str:
    """Count files by their endings, and folders, the most frequent first: ``2 .txt, 1 .mov, 1 folders``."""
    kinds = Counter("folders" if path.is_dir() else path.suffix.lower() or "without an ending" for path in paths)
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(ENDINGS_SHOWN))


def readable_suffixes() -> set[str]:
    """List the endings of what Pillow reads as pixels, on this machine."""
    Image.init()
    return {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN} - NO_PIXELS


def read_bytes(path: Path, count: int = -1) -> bytes:
    """Read a file, or so many bytes of it; what keeps it from being read becomes a line."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; correct the path") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


@contextmanager
def any_size() -> Iterator[None]:
    """Let Pillow open images of any size in the block, whose callers have looked at the size."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def open_image(data: bytes, name: str, check: Callable[[Image.Image], None] | None = None) -> Image.Image:
    """Decode an encoded image of any kind that Pillow reads.

    Args:
        data: the file.
        name: of it, for messages.
        check: raises where the image, of which the size is known, is too large. Default: beyond Pillow's limit.

    Raises:
        UserError: it is none, is damaged, or is so large that it may be meant to exhaust the memory.
    """
    try:
        with warnings.catch_warnings(), any_size() if check else nullcontext():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
            if check:
                check(image)
            image.load()
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(f"{name} has more than {Image.MAX_IMAGE_PIXELS or 0:,} pixels; cut it") from None
    except UnidentifiedImageError:
        raise UserError(f"{name} is not an image that can be read{_is_instead(data)}") from None
    except DAMAGED as error:
        raise UserError(f"{name} cannot be read: {error}") from None
    return image


def _is_instead(data: bytes) -> str:
    """Say what a file is that is no image, where its first bytes tell."""
    if not data:
        return ": it is empty"
    if data.startswith(b"version https://git-lfs"):
        return ": it is a Git LFS pointer; run git lfs pull"
    return ": it is a text or a page" if data[:256].lstrip().startswith((b"<", b"{", b"#")) else ""


def bits_of(image: Image.Image, data: bytes) -> int:
    """Bits a channel of an image in its file; Pillow gives 8 where a file has 16 and colour."""
    if data.startswith(PNG_START):
        return data[24]
    if image.format == "TIFF":
        bits = image.tag_v2.get(BITS_PER_SAMPLE, (8,))  # type: ignore[attr-defined]
        return int(max(bits if isinstance(bits, tuple) else (bits,)))
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
    """Read the stamp of an image file, of any size, without its pixels; None where there is none.

    PNG files have it in a text, others in the EXIF, as the software that made them.
    """
    if path.suffix.lower() == ".png":
        return _png_stamp(path)
    try:
        with any_size(), Image.open(path) as image:
            words = str(image.getexif().get(SOFTWARE, "")).split(maxsplit=1)
    except DAMAGED:
        return None
    return words[1] if len(words) == 2 and words[0] == STAMP else None


def _png_stamp(path: Path) -> str | None:
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


def chunk(kind: bytes, data: bytes) -> bytes:
    """Make a chunk of a PNG file (ISO/IEC 15948)."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
