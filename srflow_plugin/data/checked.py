"""Images that training and validation read, checked: BasicSR's data sets, with a line where a file cannot be used."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import lmdb
import mmcv
import numpy as np
from basicsr.utils import FileClient
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from torch.utils.data import Dataset

from srflow_plugin.errors import FLATTEN, UserError, printable
from srflow_plugin.images.files import (
    BITS_PER_SAMPLE,
    DAMAGED,
    PNG_START,
    check_memory,
    end_of_png,
    is_instead,
    picture_size,
    read_picture,
)
from srflow_plugin.memory import available_bytes

Sample = dict[str, Any]
MAX_PIXELS = 89_478_485  # of an image: Pillow's limit
DECODED = 6  # bytes a pixel: the picture, and its decoder's
SMALL = 2**25  # bytes that are never asked for: the answer would take as long as decoding a tile of 160x160
JPEG_START, JPEG_END, JPEG_ALONE = b"\xff\xd8\xff", b"\xd9", (b"\x01", b"\xd8")  # markers, the last without a length
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # none of what compressed pixels may hold


class BadImageError(UserError):
    """An image that cannot be used; its text names the file and says what to do."""

    def __init__(self, text: str) -> None:
        # A DataLoader raises a worker's exception again with the whole traceback in its text, ours in the last line.
        super().__init__(text.rpartition(f"{type(self).__name__}: ")[2].strip())


class CheckedImages(Dataset[Sample]):
    """A BasicSR data set that names the file where an image cannot be used; else the same samples.

    Every sample has a "note" beside: what is worth knowing about its files, a line for each, or "".
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.opt: dict[str, Any] = dataset.opt
        self.files = CheckedFiles(getattr(dataset, "io_backend_opt", {"type": "disk"}))
        if getattr(dataset, "file_client", self) is None:  # BasicSR's data sets make theirs with the first image
            dataset.file_client = self.files
        paths = getattr(dataset, "paths", [])
        if all(isinstance(path, dict) for path in paths):  # as the folder lists them, which differs between machines
            paths.sort(key=lambda path: path.get("lq_path", ""))

    def __getattr__(self, name: str) -> Any:  # such as data_info, which BasicSR's video models ask for
        if "dataset" not in vars(self):  # as while it is unpickled, for a process that reads
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        self.files.read.clear()
        self.files.notes.clear()
        try:
            sample = self.dataset[index]
            self._check_sizes(sample)
        except UserError as error:
            raise BadImageError(str(error)) from None
        except Exception as error:
            raise BadImageError(self._diagnosis(index, error)) from error
        return {**sample, "note": "\n".join(self.files.notes)}

    def _check_sizes(self, sample: Sample) -> None:
        if "gt" in sample and "lq" in sample and self.opt.get("scale"):
            gt, lq = sample["gt"].shape, sample["lq"].shape
            if (gt[-2], gt[-1]) != (self.opt["scale"] * lq[-2], self.opt["scale"] * lq[-1]):
                raise UserError(self._mismatch(gt[-2:], lq[-2:]) or "gt and lq of different sizes")

    def _diagnosis(self, index: int, error: Exception) -> str:
        """Say what is wrong with the files read last, as far as they tell."""
        try:
            sizes = [decode_image(data, name).shape[:2] for name, data in self.files.read.items()]
        except UserError as of_one:
            return str(of_one)
        if len(sizes) == 2:
            gt, lq = sizes
            scale = self.opt.get("scale", 1)
            if gt != (scale * lq[0], scale * lq[1]):
                return self._mismatch(gt, lq)
            if min(gt) < self.opt.get("gt_size", 0):
                name = next(iter(self.files.read))
                return f"{name} is {gt[1]}x{gt[0]}, smaller than gt_size {self.opt['gt_size']}; leave it out"
        names = ", ".join(self.files.read) or f"{self.opt['name']}, image {index}"
        return f"{names}: {error!r}"

    def _mismatch(self, gt: Sequence[int], lq: Sequence[int]) -> str:
        names = list(self.files.read)
        if len(names) != 2:
            return ""
        return (
            f"{names[0]} is {gt[1]}x{gt[0]} and {names[1]} {lq[1]}x{lq[0]}: not {self.opt['scale']} times; "
            "make the pair again with `srflow prepare`"
        )


class CheckedFiles:
    """BasicSR's FileClient that looks at what it hands out.

    Attributes:
        read: the encoded images handed out since it was cleared, by name.
        notes: what is worth knowing about them.
    """

    def __init__(self, backend: dict[str, Any]) -> None:
        self.backend = backend
        self.read: dict[str, bytes] = {}
        self.notes: list[str] = []

    def get(self, path: str, client_key: str = "default") -> bytes:
        name = printable(str(path))
        if "db_paths" in self.backend:
            name = f"{self._folders()[client_key]}: {name}"
        try:
            data = self._read(path, client_key)
        except (OSError, lmdb.Error) as error:
            raise UserError(f"{name} cannot be read: {error}") from None
        if data is None:
            raise UserError(f"{name} is in meta_info.txt and not in the LMDB; make it again with `srflow prepare`")
        note = check_image(data, name)
        if note:
            self.notes.append(note)
        self.read[name] = data
        return data

    def _read(self, path: str, client_key: str) -> bytes | None:
        if self.backend["type"] == "disk":
            return read_picture(Path(path))
        if "db_paths" not in self.backend:
            return bytes(FileClient(self.backend["type"]).get(path))
        folder = os.path.realpath(self._folders()[client_key])
        with _environment(os.getpid(), folder, self.backend.get("readahead", False)).begin() as transaction:
            data: bytes | None = transaction.get(str(path).encode("ascii"))
        return data

    def _folders(self) -> dict[str, str]:
        """Look up the LMDBs by their keys, which BasicSR's data sets give as a list or alone."""
        folders, keys = self.backend["db_paths"], self.backend.get("client_keys", "default")
        if isinstance(folders, str):
            return {keys: folders}
        return dict(zip(keys, folders, strict=True))


_environments: dict[tuple[int, str], lmdb.Environment] = {}


def close_files() -> None:
    """Close what this process has open; who needs it opens it again."""
    _environments.clear()


def _environment(process: int, folder: str, readahead: bool) -> lmdb.Environment:
    """Open an LMDB once for each process, whatever reads it: it is neither opened twice in one nor shared by two."""
    if (process, folder) not in _environments:
        options = {"readonly": True, "lock": False, "readahead": readahead}  # as BasicSR's client
        _environments[process, folder] = lmdb.open(folder, **options)
    return _environments[process, folder]


# -- encoded images ----------------------------------------------------------------------------------------------------


def check_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> str:
    """Say what is wrong with an encoded image that OpenCV would decode all the same.

    It drops alpha channels and the lower 8 of 16 bits; some versions fill what is missing of a truncated file. Of what
    it decodes it believes the sizes.

    Args:
        data: the file.
        name: of it, for messages.
        max_pixels: of the image.

    Returns:
        What is worth knowing about an image that can be used, or "".

    Raises:
        UserError: it cannot be used, with what to do.
    """
    if is_truncated(data):
        raise UserError(f"{name} is truncated; fetch or make it again")
    _check_size(data, name, max_pixels)
    if data.startswith(PNG_START):
        bits, colour = data[24], data[25]
        channels = {0: 1, 4: 2, 6: 4}.get(colour, 3)
    elif data.startswith(JPEG_START):
        return ""
    else:
        image = _decode(data, name, "unchanged")
        bits, channels = 8 * image.itemsize, 1 if image.ndim == 2 else image.shape[2]
    _check_bits(bits, name)
    if channels in (2, 4):
        raise UserError(f"{name} has an alpha channel; {FLATTEN}")
    return f"{name} is grey; it is used as three equal channels" if channels == 1 else ""


def _check_size(data: bytes, name: str, max_pixels: int) -> None:
    """Refuse an image that is none, or is larger than is wanted or fits the memory, by its header."""
    try:
        width, height = picture_size(BytesIO(data), name)
    except UserError:
        _check_bits(_bits_of_tiff(data), name)
        other = is_instead(data[:256])
        raise UserError(
            f"{name} is not a readable image{other if ';' in other else '; fetch or make it again'}"
        ) from None
    if width * height > max_pixels:
        raise UserError(
            f"{name} has {width:,} x {height:,} pixels, more than {max_pixels:,}; cut it: "
            "`srflow prepare --crop-size` does so, and --max-pixels lets it read larger ones"
        )
    if width * height * DECODED > SMALL:
        check_memory(width * height * DECODED, available_bytes(), name)


def _check_bits(bits: int, name: str) -> None:
    if bits > 8:
        raise UserError(f"{name} has {bits} bits a channel; convert it to 8")


def _bits_of_tiff(data: bytes) -> int:
    """Read the bits a channel of a TIFF file, of which Pillow does not know all kinds; 0 where it is none."""
    if not data.startswith((b"II*\0", b"MM\0*")):
        return 0
    try:
        tags = ImageFileDirectory_v2(data[:8])
        file = BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        return int(max(tags.get(BITS_PER_SAMPLE, (0,))))
    except DAMAGED:
        return 0


def is_truncated(data: bytes) -> bool:
    """Tell from its parts that a PNG or JPEG file ends too early; what follows its end, as of a phone, is no fault."""
    if data.startswith(PNG_START):
        return end_of_png(data) > len(data)
    return data.startswith(JPEG_START) and not _has_jpeg_end(data)


def _has_jpeg_end(data: bytes) -> bool:
    """Go from marker to marker; a small picture inside has an end of its own."""
    position = 2
    while marker := JPEG_MARKER.search(data, position):
        position, kind = marker.end(), marker.group()[1:]
        if kind == JPEG_END:
            return True
        if kind not in JPEG_ALONE:
            position += int.from_bytes(data[position : position + 2], "big")
    return False


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode an image as uint8 BGR (H, W, 3)."""
    check_image(data, name, max_pixels)
    return _decode(data, name, "color")


def read_bgr(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read an image file as uint8 BGR (H, W, 3)."""
    return decode_image(read_picture(path), str(path), max_pixels)


def _decode(data: bytes, name: str, flag: str) -> np.ndarray:
    try:
        image: np.ndarray | None = mmcv.imfrombytes(data, flag=flag)
    except cv2.error:  # OpenCV's answer to no bytes at all
        image = None
    if image is None:
        raise UserError(f"{name} is not a readable image; fetch or make it again")
    return image
