"""Image files read from top to bottom, a band of rows at a time: PNG files of any size need the memory of a band."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from srflow_plugin.errors import UserError
from srflow_plugin.images.files import (
    DAMAGED,
    PNG_START,
    any_size,
    bits_of,
    check_bytes,
    check_memory,
    chunk,
    damage_named,
    end_of_png,
    open_image,
    opened,
    read_bytes,
)
from srflow_plugin.images.photographs import (
    BLED,
    Photograph,
    bled,
    cut_rows,
    exif_of,
    from_array,
    orientation_of,
    to_plain,
    together,
    upright,
)
from srflow_plugin.memory import available_bytes

MAX_PIXELS = 2**30
STREAMED_FROM = 2**24  # pixels; smaller ones are decoded whole
PIECE = 2**20  # bytes read at once
IN_MEMORY = 12  # bytes a pixel that Pillow and the making of a band take
ROWS_READ = 256
MOST_FRAMES = 1000  # that are counted
PALETTE = 768  # bytes
GREY_ALPHA = 4  # colour type of PNG
# Modes of Pillow for the colour types of PNG files that have a byte a channel, or two and one channel: (type, bits).
STREAMED = {(0, 8): "L", (0, 16): "I;16", (2, 8): "RGB", (3, 8): "P", (4, 8): "LA", (6, 8): "RGBA"}


@dataclass
class Rows:
    """An image, upright, whose rows come from top to bottom.

    Attributes:
        height, width: in pixels.
        bands: goes through the rows, from the top each time it is called; all bands but the last are equally high.
        notes: what is not as it is in the file.
        tables: those by which a JPEG file is quantised; None of others.
        like: what a band is: its kind, profile and EXIF, of no rows.
    """

    height: int
    width: int
    bands: Callable[[], Iterator[Photograph]]
    notes: list[str] = field(default_factory=list)
    tables: dict[int, list[int]] | None = None

    @cached_property
    def like(self) -> Photograph:
        first = next(self.bands())
        return first._replace(rgb=first.rgb[:0].copy(), alpha=None if first.alpha is None else first.alpha[:0].copy())

    def opaque_bands(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Give colours as a network is to see them, see :func:`srflow_plugin.images.photographs.bled`, and alpha."""
        first = next(bands := self.bands(), None)
        if first is None or first.alpha is None:
            while first is not None:
                yield first.rgb, None
                first = next(bands, None)
            return
        yield from _bled(first, bands)


def rows_of(photograph: Photograph, tables: dict[int, list[int]] | None = None) -> Rows:
    """Make rows of an image in memory; ``tables`` are those of the JPEG file that it was."""
    height, width = photograph.rgb.shape[:2]

    def bands() -> Iterator[Photograph]:
        for top in range(0, height, ROWS_READ):
            yield cut_rows(photograph, slice(top, top + ROWS_READ))

    return Rows(height, width, bands, tables=tables or None)


def open_rows(path: Path, max_pixels: int = MAX_PIXELS) -> Rows:
    """Open an image file of any kind that Pillow reads; 16 bit colour with OpenCV.

    PNG files of a byte a channel that are not interlaced are read as the rows are asked for. All others are decoded
    whole, first.

    Raises:
        UserError: it cannot be read, has more than ``max_pixels``, or is decoded whole and does not fit the memory.
            Damage behind the first rows shows when they are read.
    """
    check_bytes(path)
    png = _png_header(read_bytes(path, 33))
    rows = None
    if png and png[0] * png[1] >= STREAMED_FROM and png[2]:
        _check_size(path, png[0], png[1], max_pixels)
        rows = _open_png(path, png[0], png[1], png[2])
    return rows or _open_whole(path, max_pixels)


def read_photograph(path: Path) -> Photograph:
    """Read an image file of any kind whole."""
    return together(list(open_rows(path).bands()))


def _check_size(path: Path, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UserError(f"{path} has {width:,} x {height:,} pixels, more than {max_pixels:,}; --max-pixels raises that")


def _open_whole(path: Path, max_pixels: int) -> Rows:
    data = read_bytes(path)

    def check(image: Image.Image) -> None:
        _check_size(path, *image.size, max_pixels)
        needed = image.width * image.height * IN_MEMORY
        check_memory(needed, available_bytes(), str(path), "save it as PNG, which is read row by row")

    image = open_image(data, str(path), check)
    with damage_named(str(path)):
        try:
            return _rows_of_pillow(image, data, path)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None


def _rows_of_pillow(image: Image.Image, data: bytes, path: Path) -> Rows:
    frames, profile = _frames_of(image, data), image.info.get("icc_profile")
    tables = getattr(image, "quantization", None)
    orientation, bits = orientation_of(image), bits_of(image, data)
    turned = upright(image)
    exif, notes = exif_of(image)
    image = turned
    plain, keeps_profile = to_plain(image)
    if bits == 16 and image.mode in ("RGB", "RGBA", "LA"):  # of which Pillow has dropped half
        plain = _turned(_decode_deep_colour(data), orientation)
        if data.startswith(PNG_START) and data[25] == GREY_ALPHA:
            plain = plain[..., [0, 3]]
    if frames > 1:
        more = " or more" if frames == MOST_FRAMES else ""
        notes.append(f"it has {frames}{more} frames, of which the first is taken")
    if not keeps_profile:
        notes.append(f"its colours ({image.mode}) become RGB" + (", without their profile" if profile else ""))
        profile = None
    height, width = plain.shape[:2] if isinstance(plain, np.ndarray) else plain.size[::-1]

    def bands() -> Iterator[Photograph]:
        for top in range(0, height, ROWS_READ):
            bottom = min(top + ROWS_READ, height)
            with any_size:
                part = plain[top:bottom] if isinstance(plain, np.ndarray) else plain.crop((0, top, width, bottom))
            yield from_array(np.asarray(part), profile, exif)

    return Rows(height, width, bands, notes, tables or None)


def _frames_of(image: Image.Image, data: bytes) -> int:
    """Count the frames of an image; of a TIFF file MOST_FRAMES at most: for Pillow's count the time is their square."""
    if image.format != "TIFF":
        return getattr(image, "n_frames", 1)
    with opened(BytesIO(data), "") as again:
        for number in range(1, MOST_FRAMES):
            try:
                again.seek(number)
            except DAMAGED:  # or there is none
                return number
    return MOST_FRAMES


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn (H, W, C) upright as EXIF says."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _decode_deep_colour(data: bytes) -> np.ndarray:
    """Decode 16 bit colour, or grey with alpha: uint16 (H, W, 3 or 4; RGB)."""
    try:
        import cv2
    except ImportError:
        raise UserError("it has 16 bits a channel, which needs OpenCV: pip install opencv-python") from None
    if data.startswith(PNG_START) and end_of_png(data) > len(data):
        raise UserError("it is truncated")
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        deep = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        deep = None
    if deep is None or deep.dtype != np.uint16 or deep.ndim != 3:
        raise UserError("it has 16 bits a channel in a way that is not understood; convert it to 8")
    rgb: np.ndarray = cv2.cvtColor(deep, cv2.COLOR_BGR2RGB if deep.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    return rgb


def _bled(first: Photograph, rest: Iterator[Photograph]) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Bleed bands, of which each sees some rows of its neighbours."""
    above = cut_rows(first, slice(0))

    def bands() -> Iterator[Photograph | None]:
        yield first
        yield from rest
        yield None

    for band, following in pairwise(bands()):
        assert band is not None and band.alpha is not None
        parts = [above, band] if following is None else [above, band, cut_rows(following, slice(0, BLED))]
        yield bled(together(parts), slice(len(above.rgb), len(above.rgb) + len(band.rgb))), band.alpha
        above = cut_rows(band, slice(-BLED, None))


class _PngLines:
    """Lines of a PNG file as they are stored, filtered, behind its header (ISO/IEC 15948)."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.kept: list[bytes] = []  # chunks that pixels need
        self._inflate = zlib.decompressobj()
        self._left = 0  # bytes of the chunk at hand
        file.seek(len(PNG_START))
        while not self._left:
            kind = self._next_chunk()
            if kind == b"IDAT":
                break
            if kind in (b"PLTE", b"tRNS") and self._left <= PALETTE:
                self.kept.append(chunk(kind, file.read(self._left)))
                self._left = 0
            file.seek(self._left + 4, 1)  # the checksum, too
            self._left = 0

    def take(self, count: int) -> bytes:
        """Inflate so many bytes.

        Raises:
            EOFError, zlib.error: the file ends before, or is damaged.
        """
        parts: list[bytes] = []
        while count:
            piece = self._inflate.unconsumed_tail or self._piece()
            parts.append(self._inflate.decompress(piece, count))
            count -= len(parts[-1])
        return b"".join(parts)

    def _piece(self) -> bytes:
        while not self._left:
            self.file.seek(4, 1)
            if self._next_chunk() != b"IDAT":
                raise EOFError("its pixels end too early")
        piece = self.file.read(min(self._left, PIECE))
        if not piece:
            raise EOFError("it is truncated")
        self._left -= len(piece)
        return piece

    def _next_chunk(self) -> bytes:
        start = self.file.read(8)
        if len(start) < 8:
            raise EOFError("it is truncated")
        self._left, kind = struct.unpack(">I4s", start)
        return bytes(kind)


def _png_header(start: bytes) -> tuple[int, int, str | None] | None:
    """Read width, height, and Pillow's mode for it if its rows can be decoded a band at a time."""
    if not start.startswith(PNG_START) or len(start) < 29:
        return None
    width, height, bits, colour_type, _, _, interlaced = struct.unpack(">IIBBBBB", start[16:29])
    return width, height, None if interlaced else STREAMED.get((colour_type, bits))


def _open_png(path: Path, width: int, height: int, mode: str) -> Rows | None:
    """Open a PNG file whose rows are decoded as they are asked for; None where it must be turned first.

    A band becomes a small PNG file of its own, which begins with the row above it, as filters look at that one.
    """
    with opened(path, str(path)) as image:
        if orientation_of(image) != 1:
            return None
        exif, notes = exif_of(image)
        profile, frames = image.info.get("icc_profile"), getattr(image, "n_frames", 1)
    if frames > 1:
        notes = [*notes, f"it has {frames} frames, of which the first is taken"]
    with path.open("rb") as file:
        header = file.read(33)[len(PNG_START) + 16 : -4]  # bits, colour type, ...
    line = width * len(Image.new(mode, (1, 1)).tobytes())

    def bands() -> Iterator[Photograph]:
        above = bytes(line)
        with damage_named(str(path)), path.open("rb") as file:
            lines = _PngLines(file)
            for top in range(0, height, ROWS_READ):
                count = min(ROWS_READ, height - top)
                size = chunk(b"IHDR", struct.pack(">II", width, count + 1) + header)
                pixels = zlib.compress(b"\0" + above + lines.take(count * (1 + line)), 0)
                small = PNG_START + size + b"".join(lines.kept) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
                with any_size:
                    band = Image.open(BytesIO(small), formats=("PNG",))
                    above = _stored(band.crop((0, count, width, count + 1)))
                    plain, _ = to_plain(band.crop((0, 1, width, count + 1)))
                yield from_array(np.asarray(plain), profile, exif)

    return Rows(height, width, bands, notes)


def _stored(row: Image.Image) -> bytes:
    """Give a row of pixels as a PNG file has it, without a filter."""
    return np.asarray(row).astype(">u2").tobytes() if row.mode == "I;16" else row.tobytes()
