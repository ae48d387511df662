"""From a folder of images to the pair of LMDBs that BasicSR's PairedImageDataset reads."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from basicsr.utils.lmdb_util import LmdbMaker
from mmengine.utils import ProgressBar

from srflow_plugin.data.images import IMAGE_SUFFIXES, read_image
from srflow_plugin.data.resize import bicubic_downscale
from srflow_plugin.errors import UserError

PNG_COMPRESSION = 1
IMAGES_PER_WORKER = 16  # fewer do not repay the start of a process


class Pair(NamedTuple):
    """One HR image and its LR, as PNG bytes, with their (H, W, C)."""

    key: str
    hr_png: bytes
    hr_shape: tuple[int, int, int]
    lr_png: bytes
    lr_shape: tuple[int, int, int]


def find_images(folder: Path) -> list[Path]:
    """All images in ``folder``, sorted by name."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name one with images ({', '.join(IMAGE_SUFFIXES)})")
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise UserError(f"{folder} has no images ({', '.join(IMAGE_SUFFIXES)})")
    return images


def write_lmdb_pair(
    images: Sequence[Path],
    hr_lmdb: Path,
    lr_lmdb: Path,
    scale: int,
    crop_size: int | None = None,
    border: Literal["symmetric", "replicate"] = "symmetric",
    num_workers: int | None = None,
) -> int:
    """Write images and their MATLAB-bicubic LR as two LMDBs with the same keys.

    Args:
        images: HR image files; 8 bit, read as colour.
        hr_lmdb, lr_lmdb: folders to make, ``*.lmdb``. They appear when complete, or not at all.
        scale: downscaling factor.
        crop_size: cut each image into tiles of that many HR pixels a side (small entries are read faster in training),
            the last one of a row or column moved back inside; None keeps images whole, cropped to a multiple of
            ``scale``. Images smaller than ``crop_size`` stay whole.
        border: see :func:`bicubic_downscale`.
        num_workers: processes; default: up to all cores, as many as the number of images repays.

    Returns:
        Number of pairs.
    """
    if crop_size is not None and crop_size % scale:
        raise UserError(f"crop size {crop_size} must be a multiple of scale {scale}")
    names = [_key(path) for path in images]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"two images would be stored as {twice!r}; rename one")
    for lmdb in (hr_lmdb, lr_lmdb):
        if lmdb.suffix != ".lmdb":
            raise UserError(f"{lmdb} must end in .lmdb")
        if lmdb.exists():
            raise UserError(f"{lmdb} exists; delete it or choose another name")

    unfinished = {lmdb: lmdb.with_name(f"{lmdb.stem}.unfinished.lmdb") for lmdb in (hr_lmdb, lr_lmdb)}
    for lmdb in unfinished.values():
        shutil.rmtree(lmdb, ignore_errors=True)
        lmdb.parent.mkdir(parents=True, exist_ok=True)
    workers = num_workers or max(1, min(os.cpu_count() or 1, len(images) // IMAGES_PER_WORKER))
    make = partial(make_pairs, scale=scale, crop_size=crop_size, border=border)
    bar = ProgressBar(len(images), file=sys.stderr)
    count = 0
    try:
        hr_maker, lr_maker = (LmdbMaker(str(lmdb)) for lmdb in unfinished.values())
        for pairs in _in_parallel(make, images, workers):
            bar.update()
            for pair in pairs:
                hr_maker.put(pair.hr_png, pair.key, pair.hr_shape)
                lr_maker.put(pair.lr_png, pair.key, pair.lr_shape)
                count += 1
        hr_maker.close()
        lr_maker.close()
        for final, written in unfinished.items():
            written.rename(final)
    finally:
        sys.stderr.write("\n")  # after the bar
        for lmdb in unfinished.values():
            shutil.rmtree(lmdb, ignore_errors=True)
    return count


def make_pairs(path: Path, scale: int, crop_size: int | None, border: Literal["symmetric", "replicate"]) -> list[Pair]:
    """Read one image and make its tiles."""
    image = read_image(path)
    height, width = (size - size % scale for size in image.shape[:2])
    if not height or not width:
        raise UserError(f"{path} is smaller than {scale} pixels; remove it")
    image = image[:height, :width]
    # Downscaled whole, then cut: tiles see their neighbours' pixels, not a border of their own.
    small = bicubic_downscale(image, scale, border)
    pairs = []
    for number, (top, left) in enumerate(_tile_corners(height, width, crop_size, scale), start=1):
        tile_height, tile_width = min(crop_size or height, height), min(crop_size or width, width)
        hr = image[top : top + tile_height, left : left + tile_width]
        lr = small[top // scale : (top + tile_height) // scale, left // scale : (left + tile_width) // scale]
        key = _key(path) if crop_size is None else f"{_key(path)}_s{number:03d}"
        pairs.append(Pair(key, _encode(hr), hr.shape, _encode(lr), lr.shape))
    return pairs


def _key(path: Path) -> str:
    """LMDB key of an image: BasicSR cuts keys at the first dot and encodes them as ASCII."""
    key = path.stem.replace(".", "_").replace(" ", "_")
    if not key.isascii():
        raise UserError(f"{path}: the name must be ASCII to become an LMDB key; rename the file")
    return key


def _tile_corners(height: int, width: int, size: int | None, scale: int) -> list[tuple[int, int]]:
    def starts(length: int) -> list[int]:
        if size is None or length <= size:
            return [0]
        regular = list(range(0, length - size + 1, size))
        last = length - size
        return regular if regular[-1] == last else [*regular, last - last % scale]

    return [(top, left) for top in starts(height) for left in starts(width)]


def _encode(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION])[1].tobytes()


def _in_parallel(function: Callable[[Path], list[Pair]], images: Sequence[Path], workers: int) -> Iterator[list[Pair]]:
    """``function`` of each image, in order, from several processes."""
    if workers == 1:
        yield from map(function, images)
    else:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            yield from pool.imap(function, images)
