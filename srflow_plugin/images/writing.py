"""Image files written from top to bottom, a band of rows at a time: PNG and TIFF of any size need the memory of a band.

JPEG and WebP files are encoded whole, from an image in memory.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from srflow_plugin.errors import UserError
from srflow_plugin.files import complete_or_absent
from srflow_plugin.images.files import PNG_START, SOFTWARE, STAMP, chunk
from srflow_plugin.images.photographs import Photograph

Put = Callable[[np.ndarray], None]
FORMATS = ("png", "jpg", "webp", "tiff")
WITH_QUALITY = ("jpg", "webp")
DEFAULT_QUALITY = 95
LIMITS = {"jpg": 2**16 - 1, "webp": 2**14 - 1}  # pixels a side
MAX_TIFF = 2**32 - 2**24  # bytes, with room for what is not pixels
PNG_LIMIT = 2**31 - 1  # pixels a side
COMPRESSION = 6
STRIP_OFFSETS, STRIP_SIZES = 273, 279  # TIFF tags
STRIP_ROWS = 16
PAETH, COLOUR_TYPES = 4, {1: 0, 2: 4, 3: 2, 4: 6}
WHITE = 255


class Layout(NamedTuple):
    """An image file to be.

    Attributes:
        height, width, channels: of its pixels; channels 1 to 4.
        bits: 8 or 16.
        icc_profile, exif: kept in it.
        stamp: what it is made with, see :func:`srflow_plugin.images.files.read_stamp`.
        quality: 1 to 100, of JPEG and WebP; a WebP of 100 is lossless.
    """

    height: int
    width: int
    channels: int
    bits: int = 8
    icc_profile: bytes | None = None
    exif: bytes | None = None
    stamp: str | None = None
    quality: int = DEFAULT_QUALITY


def layout_of(photograph: Photograph, height: int, width: int, stamp: str | None = None) -> Layout:
    """Make the layout of a file of a photograph's kind, of another size."""
    kept = photograph.icc_profile, photograph.exif
    return Layout(height, width, photograph.channels, photograph.bits, *kept, stamp)


def file_format(path: Path) -> str:
    """Name the format of a file by its ending.

    Raises:
        UserError: it is written by nobody here.
    """
    ending = path.suffix.lower().lstrip(".")
    kind = {"jpeg": "jpg", "jfif": "jpg", "tif": "tiff"}.get(ending, ending)
    if kind not in FORMATS:
        raise UserError(f"{path} must end in {', '.join('.' + name for name in FORMATS)}")
    return kind


def check_layout(path: Path, layout: Layout) -> list[str]:
    """Say what a format cannot keep of a picture.

    Raises:
        UserError: the picture is too large for it.
    """
    kind, notes = file_format(path), []
    if max(layout.height, layout.width) > LIMITS.get(kind, PNG_LIMIT):
        raise UserError(
            f"{path.name} would be {layout.width:,} x {layout.height:,}, more than {LIMITS.get(kind, PNG_LIMIT):,} a "
            f"side, which {kind} cannot hold; give --format png"
        )
    if kind == "tiff" and layout.height * layout.width * layout.channels * layout.bits // 8 > MAX_TIFF:
        raise UserError(f"{path.name} would have more than 4 GB, which TIFF cannot hold; give --format png")
    if kind in WITH_QUALITY and layout.bits == 16:
        notes.append(f"{kind} has 8 bits a channel, not 16")
    if kind == "jpg" and layout.channels in (2, 4):
        notes.append("jpg knows no transparency: it is put on white")
    return notes


@contextmanager
def picture_written(path: Path, layout: Layout) -> Iterator[Put]:
    """Write an image file: what the block is given takes its rows, uint8 or uint16 (rows, W[, C]), from top to bottom.

    The file appears when complete, or not at all.
    """
    write = {"png": _png, "tiff": _tiff}.get(file_format(path), _whole)
    as_colour = write is _tiff and layout.bits == 16 and layout.channels == 2  # which few programs read
    layout = layout._replace(channels=4) if as_colour else layout
    with complete_or_absent(path) as unfinished, unfinished.open("wb") as file, write(file, layout, path) as put:
        yield (lambda rows: put(rows[..., [0, 0, 0, 1]])) if as_colour else put


def eight_bit(pixels: np.ndarray) -> np.ndarray:
    """Round uint16 to uint8; uint8 stays."""
    if pixels.dtype == np.uint8:
        return pixels
    rounded: np.ndarray = ((pixels.astype(np.uint32) * 255 + 2**15) // (2**16 - 1)).astype(np.uint8)
    return rounded


def write_photograph(path: Path, photograph: Photograph, stamp: str | None = None) -> None:
    """Write a whole photograph, with its colour profile and EXIF, and with a stamp."""
    with picture_written(path, layout_of(photograph, photograph.rgb.shape[0], photograph.rgb.shape[1], stamp)) as put:
        put(photograph.quantised())


@contextmanager
def _png(file: BinaryIO, layout: Layout, path: Path) -> Iterator[Put]:
    """Write a PNG file (ISO/IEC 15948)."""
    colour_type = COLOUR_TYPES[layout.channels]
    header = struct.pack(">IIBBBBB", layout.width, layout.height, layout.bits, colour_type, 0, 0, 0)
    file.write(PNG_START + chunk(b"IHDR", header))
    if layout.icc_profile:
        file.write(chunk(b"iCCP", b"profile\0\0" + zlib.compress(layout.icc_profile)))
    if layout.exif:
        file.write(chunk(b"eXIf", layout.exif.removeprefix(b"Exif\0\0")))
    if layout.stamp:
        file.write(chunk(b"tEXt", f"{STAMP}\0{layout.stamp}".encode("latin-1")))
    deflate = zlib.compressobj(COMPRESSION)
    pixel = layout.channels * layout.bits // 8
    above = np.zeros(layout.width * pixel, np.uint8)

    def put(rows: np.ndarray) -> None:
        nonlocal above
        lines = _as_bytes(rows, ">")
        data = deflate.compress(_filtered(lines, above, pixel).tobytes())
        above = lines[-1]
        if data:
            file.write(chunk(b"IDAT", data))

    yield put
    file.write(chunk(b"IDAT", deflate.flush()) + chunk(b"IEND", b""))


def _as_bytes(rows: np.ndarray, order: Literal["<", ">"]) -> np.ndarray:
    """View pixels (rows, W[, C]) as bytes (rows, W * C * bytes a channel)."""
    whole = np.ascontiguousarray(rows, rows.dtype.newbyteorder(order)).reshape(len(rows), -1)
    return whole.view(np.uint8)


def _filtered(lines: np.ndarray, above: np.ndarray, pixel: int) -> np.ndarray:
    """Filter lines of a PNG file: the difference to the nearest of left, up, and left + up - upper left (Paeth)."""
    ups = np.concatenate([above[None], lines[:-1]])
    left, up, corner = (np.zeros(lines.shape, np.int16) for _ in range(3))
    left[:, pixel:], up[:], corner[:, pixel:] = lines[:, :-pixel], ups, ups[:, :-pixel]
    to_left, to_up = np.abs(up - corner), np.abs(left - corner)
    to_corner = np.abs(left + up - 2 * corner)
    nearest = np.where(to_up <= to_corner, up, corner)
    nearest = np.where((to_left <= to_up) & (to_left <= to_corner), left, nearest)
    return np.insert(lines - nearest.astype(np.uint8), 0, PAETH, axis=1)


@contextmanager
def _tiff(file: BinaryIO, layout: Layout, path: Path) -> Iterator[Put]:
    """Write a TIFF file (revision 6.0): deflated strips, then the tags."""
    file.write(b"II*\0" + bytes(4))
    strips: list[tuple[int, int]] = []  # where, and how many bytes
    waiting = np.empty((0, layout.width * layout.channels * layout.bits // 8), np.uint8)

    def put(rows: np.ndarray) -> None:
        nonlocal waiting
        waiting = np.concatenate([waiting, _as_bytes(rows, "<")])
        while len(waiting) >= STRIP_ROWS:
            strip(waiting[:STRIP_ROWS])
            waiting = waiting[STRIP_ROWS:]

    def strip(lines: np.ndarray) -> None:
        data = zlib.compress(lines.tobytes(), COMPRESSION)
        strips.append((file.tell(), len(data)))
        file.write(data)

    yield put
    if len(waiting):
        strip(waiting)
    file.write(bytes(file.tell() % 2))
    start = file.tell()
    file.write(_tiff_folder(layout, strips, start))
    file.seek(4)
    file.write(struct.pack("<I", start))


def _tiff_folder(layout: Layout, strips: Sequence[tuple[int, int]], start: int) -> bytes:
    """Make the tags' part of a TIFF file, which is to stand at ``start``."""
    tags = _tiff_tags(layout)
    tags.tagtype[STRIP_OFFSETS] = tags.tagtype[STRIP_SIZES] = 4
    tags[STRIP_SIZES] = tuple(size for _, size in strips)
    tags[STRIP_OFFSETS] = (0,) * len(strips)
    folder = bytearray(tags.tobytes(start))
    # Pillow takes the strips to follow the tags, and moves their places by what it cannot be told.
    for entry in range(2, 2 + 12 * len(tags), 12):
        tag, _, count, place = struct.unpack_from("<HHII", folder, entry)
        if tag == STRIP_OFFSETS:
            where = entry + 8 if count == 1 else place - start
            struct.pack_into(f"<{count}I", folder, where, *(offset for offset, _ in strips))
    return bytes(folder)


def _tiff_tags(layout: Layout) -> ImageFileDirectory_v2:
    """Make the tags of a TIFF file, those of the EXIF among them."""
    tags = ImageFileDirectory_v2(prefix=b"II")
    if layout.exif:
        exif = Image.Exif()
        exif.load(layout.exif)
        for tag, value in exif.items():
            if tag not in (34665, 34853):  # of which there are more, in folders of their own
                tags[tag] = value
        for folder in (34665, 34853):
            if exif.get_ifd(folder):
                tags[folder] = dict(exif.get_ifd(folder))
    grey, has_alpha = layout.channels < 3, layout.channels in (2, 4)
    tags[256], tags[257], tags[258] = layout.width, layout.height, (layout.bits,) * layout.channels
    tags[259], tags[262], tags[277], tags[278], tags[284] = 8, 1 if grey else 2, layout.channels, STRIP_ROWS, 1
    if has_alpha:
        tags[338] = 2  # not premultiplied
    if layout.icc_profile:
        tags.tagtype[34675] = 7
        tags[34675] = layout.icc_profile
    if layout.stamp:
        tags[SOFTWARE] = f"{STAMP} {layout.stamp}"
    return tags


@contextmanager
def _whole(file: BinaryIO, layout: Layout, path: Path) -> Iterator[Put]:
    """Write a JPEG or a WebP file."""
    shape = (layout.height, layout.width, layout.channels)
    pixels = np.empty(shape, np.uint8)
    done = 0

    def put(rows: np.ndarray) -> None:
        nonlocal done
        pixels[done : done + len(rows)] = eight_bit(rows).reshape(len(rows), *shape[1:])
        done += len(rows)

    yield put
    _encode_whole(file, pixels, file_format(path), layout)


def _encode_whole(file: BinaryIO, pixels: np.ndarray, kind: str, layout: Layout) -> None:
    image = Image.fromarray(pixels[..., 0] if layout.channels == 1 else pixels)
    settings: dict[str, Any] = {"quality": layout.quality}
    if kind == "jpg":
        if layout.channels in (2, 4):
            white = Image.new("RGBA", image.size, "white")
            white.alpha_composite(image.convert("RGBA"))
            image = white.convert("L" if layout.channels == 2 else "RGB")
        settings["subsampling"] = 0
    else:
        image = image.convert("RGBA" if layout.channels in (2, 4) else "RGB")
        settings["lossless"] = layout.quality == 100
    exif = Image.Exif()
    if layout.exif:
        exif.load(layout.exif)
    if layout.stamp:
        exif[SOFTWARE] = f"{STAMP} {layout.stamp}"
    settings |= {"exif": exif.tobytes()} if len(exif) else {}
    settings |= {"icc_profile": layout.icc_profile} if layout.icc_profile else {}
    encoded = BytesIO()
    image.save(encoded, {"jpg": "JPEG", "webp": "WEBP"}[kind], **settings)
    file.write(encoded.getbuffer())
