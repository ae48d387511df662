"""Files that are no checkpoints: what they are instead, by what they begin and end with. Needs no torch."""

from __future__ import annotations

import errno
import json
import re
import zipfile
from pathlib import Path

READ = 4096  # bytes from the start
SMALLEST = 16  # bytes of anything
TEXT_SHOWN = 40
LENGTH_BYTES = 8  # of a safetensors header's length
# Beginnings of files, as far as they tell.
KINDS: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"RIFF", "a WebP image, a sound or a film"),
    (b"\0\0\0 ftyp", "a film or an image of a phone"),
    (b"%PDF", "a PDF document"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"BZh", "a bzip2 archive: unpack it"),
    (b"\xfd7zXZ", "an xz archive: unpack it"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive: unpack it"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it"),
    (b"Rar!", "a RAR archive: unpack it"),
    (b"\x89HDF", "an HDF5 file, as of Keras: not of PyTorch"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"GGUF", "a GGUF file: not of PyTorch"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"SQLite format 3", "a database"),
    (b"\x80\x02\x8a\n", "cut off or damaged: its download broke, or its disk was full; fetch it again"),
    (b"\x80", "a pickle of Python's objects, which is not loaded because that could run code"),
    (b"version https://git-lfs.github.com", "what Git LFS leaves in place of a file: fetch that with `git lfs pull`"),
)
TAR = (257, b"ustar")  # where a tar archive says that it is one


def what_is(path: Path) -> str | None:
    """Say what a file is that holds no weights, or only a part of them; None where it does not show.

    >>> what_is(Path(__file__))
    "a text ('Files that are no checkpoints: what they...')"
    """
    with path.open("rb") as file:
        start = file.read(READ)
    size = path.stat().st_size
    if size < SMALLEST:
        return f"only {size} bytes long" if size else "empty"
    if start.startswith(b"PK"):
        return _what_zip(path)
    if start[TAR[0] :].startswith(TAR[1]):
        return "a tar archive: unpack it"
    for beginning, kind in KINDS:
        if start.startswith(beginning):
            return kind
    if not start.strip(b"\0"):
        return "full of zeros: its download or its disk failed; fetch it again"
    return _what_safetensors(start, size) or _what_text(start)


def is_safetensors(path: Path) -> bool:
    """Say whether a file is laid out as safetensors, whatever its name."""
    with path.open("rb") as file:
        start = file.read(LENGTH_BYTES + 1)
    return start[LENGTH_BYTES:] == b"{" and int.from_bytes(start[:LENGTH_BYTES], "little") < path.stat().st_size


def _what_zip(path: Path) -> str | None:
    """Tell the archives that PyTorch writes from others."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # of the disk, not of a place in the file
            raise
        return "cut off or damaged: its download broke, or its disk was full; fetch it again"
    if any(re.fullmatch(r"[^/]+/constants\.pkl", name) for name in names):
        return "a TorchScript program: weights alone are needed (a state dict)"
    if not any(name.endswith("data.pkl") for name in names):
        return f"a zip archive of {names[0] if names else 'nothing'}: unpack it"
    return None


def _what_safetensors(start: bytes, size: int) -> str | None:
    """Find how much of a safetensors file is missing."""
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    if start[LENGTH_BYTES : LENGTH_BYTES + 1] != b"{" or length > 100 * size + READ:
        return None
    ends = [int(end) for end in re.findall(rb'"data_offsets":\[\d+,(\d+)\]', start)]
    if LENGTH_BYTES + length + max(ends, default=0) > size:
        return f"cut off after {size} bytes: its download broke, or its disk was full; fetch it again"
    return None


def _what_text(start: bytes) -> str | None:
    """Tell web pages, JSON and other texts."""
    try:
        text = start.decode().strip()
    except UnicodeDecodeError as error:
        if error.start < READ - 4:  # within the text, not where it was cut
            return None
        text = start[: error.start].decode().strip()
    if not text or not all(letter.isprintable() or letter.isspace() for letter in text):
        return None
    if re.match(r"<(!doctype html|html|\?xml|head)", text, re.IGNORECASE):
        return "a web page, as a download that failed leaves: fetch it again, by the address of the file itself"
    words = re.sub(r'^[#"\'\s]+', "", text)
    shown = " ".join(words.split())[:TEXT_SHOWN]
    try:
        json.loads(text)
        return f"a JSON text ({shown!r}...)"
    except ValueError:
        return f"a text ({shown + ('...' if len(words) > TEXT_SHOWN else '')!r})"
