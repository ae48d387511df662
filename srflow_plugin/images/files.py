"""Image files, in and out, as uint8 RGB (H, W, 3). Needs no torch."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from srflow_plugin.errors import FLATTEN, SHORT, UserError, counted, printable
from srflow_plugin.files import check_is_file, complete_or_absent
from srflow_plugin.images.photographs import upright

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp")
# All that Pillow may take a file for, whatever its name. Others of its formats are drawn by other programs (EPS by
# Ghostscript), are films or tables, or have decoders that few have looked at.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM", "TGA")
BYTES_PER_PIXEL, BYTES_BESIDE = 16, 2**28  # the most of a file: four channels of 32 bits, and what is no picture
MOST_OF_WEBP = 2**13  # pixels a side in a file of more than BYTES_BESIDE; larger ones compress
# Files that people take for pictures, by how they begin.
OTHERS: dict[bytes, str] = {
    b"%!PS": "PostScript; export it as PNG",
    b"\xc5\xd0\xd3\xc6": "PostScript; export it as PNG",
    b"%PDF": "a PDF; export its picture as PNG",
    b"\xd7\xcd\xc6\x9a": "a metafile of Windows; export it as PNG",
    b"\x01\0\0\0": "a metafile of Windows, or none; export it as PNG",
    b"\xd0\xcf\x11\xe0": "a file of an office program, or of FlashPix; export its picture as PNG",
    b"8BPS": "a Photoshop document; export it as PNG",
    b"\0\0\0\x0cjP  ": "JPEG 2000; save it as PNG",
    b"\xff\x4f\xff\x51": "JPEG 2000; save it as PNG",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"version https://git-lfs": "a Git LFS pointer; run git lfs pull",
}
# Pillow's answers to damaged files.
DAMAGED: tuple[type[Exception], ...] = (OSError, ValueError, SyntaxError, EOFError, TypeError, AttributeError)
DAMAGED += (LookupError, ArithmeticError, struct.error, zlib.error)
BITS_PER_SAMPLE = 258  # TIFF tag
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
    """Count files by their endings, and folders, the most frequent first: ``2 .txt, 1 .mov, 1 folder``."""
    kinds = Counter("folder" if path.is_dir() else path.suffix.lower() or "without an ending" for path in paths)
    most = kinds.most_common(ENDINGS_SHOWN)
    return ", ".join(counted(count, kind) if kind == "folder" else f"{count} {kind}" for kind, count in most)


def readable_suffixes() -> set[str]:
    """List the endings of what is read as pictures, FORMATS."""
    Image.init()
    return {ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS}


def read_bytes(path: Path, count: int = -1) -> bytes:
    """Read a file, or so many bytes of it; what keeps it from being read becomes a line.

    Never waits, as opening a pipe would, and never reads without end, as of a device.
    """
    _check_regular(path)
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def _check_regular(path: Path) -> None:
    if not path.is_dir():  # of which the system says that it cannot be read
        check_is_file(path)


def read_picture(path: Path) -> bytes:
    """Read an encoded image, if it is a file and has not far more bytes than its pixels can need."""
    check_bytes(path)
    return read_bytes(path)


def check_bytes(path: Path) -> None:
    """Refuse a file that is none, or is far larger than its image, before a decoder reads all of it.

    Raises:
        UserError: with its size and what to do.
    """
    _check_regular(path)
    try:
        size = path.stat().st_size
        if size <= BYTES_BESIDE:
            return
        with path.open("rb") as file:
            start = file.read(24)
            if start.startswith(PNG_START):
                width, height = struct.unpack(">II", start[16:24].ljust(8, b"\0"))
            elif start.startswith(b"RIFF"):  # WebP, whose decoder reads the file before it says its size
                width = height = MOST_OF_WEBP
            else:
                width, height = picture_size(file, str(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if size > width * height * BYTES_PER_PIXEL + BYTES_BESIDE:
        held = f"{path} has {size / 2**30:.1f} GiB, more than an image of {width:,} x {height:,} pixels can need"
        raise UserError(f"{held}; save it anew as PNG, without what is beside the image")


def check_memory(needed: float, free: int | None, what: str, hint: str = "choose a smaller one") -> None:
    """Say before any work that so many bytes of memory are not free, where the system tells it."""
    if free is not None and needed > free:
        gib = f"needs {needed / 2**30:.1f} GiB of memory, of which {free / 2**30:.1f} are free"
        raise UserError(f"{what} {gib}; {hint}")


class _AnySize:
    """Block in which Pillow opens images of any size and says nothing, in several threads at once if need be.

    Who opens one looks at the size, and at what can be said of the image, by other means.
    """

    def __init__(self) -> None:
        self.lock, self.inside, self.undo = Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.limit = Image.MAX_IMAGE_PIXELS
                self.undo.callback(setattr, Image, "MAX_IMAGE_PIXELS", self.limit)
                self.undo.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
                Image.MAX_IMAGE_PIXELS = None
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.undo.close()


any_size = _AnySize()


@contextmanager
def damage_named(name: str) -> Iterator[None]:
    """Name the file where Pillow fails on it in the block."""
    try:
        yield
    except UserError:
        raise
    except DAMAGED as error:
        raise UserError(f"{name} cannot be read: {printable(str(error)):.{SHORT}}") from None


@contextmanager
def opened(file: Path | BinaryIO | io.BytesIO, name: str) -> Iterator[Image.Image]:
    """Open an image of one of FORMATS, of any size, by its header: the one door to Pillow's decoders.

    Args:
        file: a path, or what has been opened.
        name: of the file, for messages.

    Raises:
        UserError: in the block as well, it is none, or is damaged.
    """
    if isinstance(file, Path):
        check_bytes(file)
    with any_size, damage_named(name):
        try:
            Image.init()
            image = Image.open(file, formats=[kind for kind in FORMATS if kind in Image.OPEN])
        except UnidentifiedImageError:
            start = _start(file)
            if start.startswith(PNG_START):
                raise UserError(f"{name} cannot be read: its header is damaged") from None
            raise UserError(f"{name} is not an image that can be read{is_instead(start)}") from None
        try:
            yield image
        finally:
            if isinstance(file, Path):
                image.close()


def picture_size(file: Path | BinaryIO | io.BytesIO, name: str) -> tuple[int, int]:
    """Read width and height of an image from its header; raises as :func:`opened`."""
    with opened(file, name) as image:
        return image.size


def open_image(data: bytes, name: str, check: Callable[[Image.Image], None] | None = None) -> Image.Image:
    """Decode an encoded image of one of FORMATS.

    Args:
        data: the file.
        name: of it, for messages.
        check: raises where the image, of which the size is known, is too large. Default: beyond Pillow's limit.

    Raises:
        UserError: it is none, is damaged, or is so large that it may be meant to exhaust the memory.
    """
    with opened(io.BytesIO(data), name) as image:
        if check:
            check(image)
        elif any_size.limit and image.width * image.height > any_size.limit:
            raise UserError(f"{name} has more than {any_size.limit:,} pixels; cut it")
        image.load()
        return image


def _start(file: Path | BinaryIO | io.BytesIO) -> bytes:
    if isinstance(file, Path):
        return read_bytes(file, 256)
    file.seek(0)
    return file.read(256)


def is_instead(start: bytes) -> str:
    """Say what a file is that is no image, where its first bytes tell, and what to do."""
    if not start:
        return ": it is empty"
    known = next((what for beginning, what in OTHERS.items() if start.startswith(beginning)), None)
    if start[4:8] == b"ftyp":
        known = "a film, HEIC or AVIF; save it as PNG or JPEG"
    if known:
        return f": it is {known}"
    return ": it is a text or a page" if start[:256].lstrip().startswith((b"<", b"{", b"#")) else ""


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
    data = read_picture(path)
    image = open_image(data, str(path))
    with damage_named(str(path)):
        bits = 16 if image.mode == "I" else bits_of(image, data)
        if bits > 8:
            raise UserError(f"{path} has {bits} bits a channel; convert it to 8")
        if image.mode in ("RGBA", "LA", "PA"):
            raise UserError(f"{path} has an alpha channel; {FLATTEN}")
        return np.asarray(upright(image).convert("RGB"))


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
        with opened(path, str(path)) as image:
            words = str(image.getexif().get(SOFTWARE, "")).split(maxsplit=1)
    except UserError:
        return None
    return words[1] if len(words) == 2 and words[0] == STAMP else None


def _png_stamp(path: Path) -> str | None:
    start = STAMP.encode() + b"\0"
    if not path.is_file():
        return None
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


def end_of_png(data: bytes) -> int:
    """Find by the lengths of its parts, which decoders believe, where a PNG file ends, or should."""
    position, kind = len(PNG_START), b""
    while kind != b"IEND" and position <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8].ljust(8, b"\0"))
        position += 12 + length
    return position


def is_whole_png(data: bytes) -> bool:
    """Say whether a PNG file has an end, and each of its parts the checksum that it was written with."""
    position, end = len(PNG_START), end_of_png(data)
    if not data.startswith(PNG_START) or end > len(data):
        return False
    while position < end:
        (length,) = struct.unpack(">I", data[position : position + 4])
        (checksum,) = struct.unpack(">I", data[position + 8 + length : position + 12 + length])
        if zlib.crc32(data[position + 4 : position + 8 + length]) != checksum:
            return False
        position += 12 + length
    return True


def chunk(kind: bytes, data: bytes) -> bytes:
    """Make a chunk of a PNG file (ISO/IEC 15948)."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
