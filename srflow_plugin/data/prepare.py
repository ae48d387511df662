"""From images to the pair of LMDBs, or of folders, that BasicSR's PairedImageDataset reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from srflow_plugin.data.checked import MAX_PIXELS, read_bgr
from srflow_plugin.data.download import check_free
from srflow_plugin.data.pairs import PNG_COMPRESSION, Pair, key_for, open_writer
from srflow_plugin.data.parallel import in_parallel
from srflow_plugin.errors import UserError
from srflow_plugin.files import check_is_file
from srflow_plugin.images.files import check_memory, picture_size
from srflow_plugin.images.resize import Border, bicubic_downscale
from srflow_plugin.locks import held
from srflow_plugin.memory import available_bytes
from srflow_plugin.progress import tell

DOWNSCALED = 16  # bytes a pixel, beside the picture
PNG_BYTES_PER_PIXEL = 1.8  # of photographs, a little more than measured
IMAGES_PER_WORKER = 16  # fewer do not repay the start of a process


def write_pairs(
    images: Sequence[Path],
    hr: Path,
    lr: Path,
    scale: int,
    crop_size: int | None = None,
    border: Border = "symmetric",
    num_workers: int | None = None,
    center_crop: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> int:
    """Write images and their MATLAB-bicubic LR under the same names, as two LMDBs or two folders of PNG files.

    Folders have the images' own names, LMDBs have them percent-encoded.

    A run that was killed, or found an image that cannot be used, goes on where it was when it is started again.

    Args:
        images: HR image files; 8 bit, read as colour.
        hr, lr: what to make. ``*.lmdb`` appear when complete, or not at all: until then they are called
            ``*.unfinished.lmdb``. Other names become folders of PNG files.
        scale: downscaling factor.
        crop_size: cut each image into tiles of that many HR pixels a side (small entries are read faster in training),
            the last one of a row or column moved back inside; None keeps images whole, cropped to a multiple of
            ``scale``. An image that is smaller is left out, and named.
        border: see :func:`bicubic_downscale`.
        num_workers: processes; default: up to all cores, as many as the number of images repays.
        center_crop: first cut that many HR pixels a side out of the middle of each image, as for faces.
        max_pixels: of an image; a larger one is refused.

    Returns:
        Number of pairs.
    """
    _check_cuts(scale, crop_size, center_crop)
    settings: dict[str, Any] = {"scale": scale, "crop_size": crop_size, "border": border, "center_crop": center_crop}
    with ExitStack() as stack:
        for path in sorted({hr, lr}):  # an output may be half of another pair, too
            stack.enter_context(held(path.with_name(f".{path.name}.lock"), str(path)))
        return _write(images, hr, lr, settings, num_workers, max_pixels)


def _write(
    images: Sequence[Path], hr: Path, lr: Path, settings: dict[str, Any], num_workers: int | None, max_pixels: int
) -> int:
    """Write the pairs that are not there."""
    versions, crop_size = _versions(images, key_for(hr)), settings["crop_size"]
    writer = open_writer(hr, lr, settings, versions)
    if writer.complete:
        return writer.count()
    todo = {path: key for path, key in zip(images, versions, strict=True) if not writer.has(key)}
    workers = num_workers or max(1, min(os.cpu_count() or 1, len(todo) // IMAGES_PER_WORKER))
    make = partial(make_pairs, **settings, max_pixels=max_pixels)
    try:
        check_space([*todo], hr.parent, settings["scale"], settings["center_crop"])
        with closing(in_parallel(make, todo, workers)) as made:
            bar = tqdm(made, total=len(images), initial=len(images) - len(todo), unit="image")
            for (path, key), pairs in zip(todo.items(), bar, strict=True):
                writer.put(key, pairs)
                if not pairs:
                    tell(f"{path} is smaller than {crop_size}x{crop_size} and left out")
        if not any(writer.has(key) for key in versions):
            raise UserError(f"no image is as large as {crop_size}x{crop_size}; lower --crop-size")
        return writer.finish()
    finally:
        writer.close()


def check_space(images: Sequence[Path], folder: Path, scale: int, center_crop: int | None) -> None:
    """Say before any work that the images will not fit on the disk.

    Raises:
        UserError: with what is needed and what is free.
    """
    pixels = 0
    for path in images:
        try:
            width, height = picture_size(path, str(path))
        except UserError:
            continue  # whoever reads it says what is wrong with it
        pixels += min(width, center_crop or width) * min(height, center_crop or height)
    needed = pixels * PNG_BYTES_PER_PIXEL * (1 + 1 / scale**2)
    check_free(folder, needed, "the images need", "choose another disk with -o")


def make_pairs(
    path: Path,
    scale: int,
    crop_size: int | None,
    border: Border,
    center_crop: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> list[Pair]:
    """Read one image and make its tiles."""
    image = read_bgr(path, max_pixels)
    if center_crop is not None:
        if min(image.shape[:2]) < center_crop:
            size = f"{image.shape[1]}x{image.shape[0]}, smaller than center crop {center_crop}"
            raise UserError(f"{path} is {size}; remove it")
        top, left = ((size - center_crop) // 2 for size in image.shape[:2])
        image = image[top : top + center_crop, left : left + center_crop]
    height, width = (size - size % scale for size in image.shape[:2])
    if not height or not width:
        raise UserError(f"{path} is smaller than {scale} pixels; remove it")
    if crop_size is not None and min(height, width) < crop_size:
        return []
    image = image[:height, :width]
    check_memory(height * width * DOWNSCALED, available_bytes(), str(path))
    # Downscaled whole, then cut: tiles see their neighbours' pixels, not a border of their own.
    small = bicubic_downscale(image, scale, border)
    pairs = []
    for top, left in _tile_corners(height, width, crop_size, scale):
        tile_height, tile_width = min(crop_size or height, height), min(crop_size or width, width)
        hr = image[top : top + tile_height, left : left + tile_width]
        lr = small[top // scale : (top + tile_height) // scale, left // scale : (left + tile_width) // scale]
        pairs.append(Pair(_encode(hr), _encode(lr)))
    return pairs


def _check_cuts(scale: int, crop_size: int | None, center_crop: int | None) -> None:
    for what, size in (("crop size", crop_size), ("center crop", center_crop)):
        if size is not None and (size < 1 or size % scale):
            raise UserError(f"{what} {size} must be a multiple of scale {scale}")


def _versions(images: Sequence[Path], spell: Callable[[str], str]) -> dict[str, Any]:
    """Make the images' keys, which must differ, each with what tells another version of the image."""
    by_key: dict[str, Path] = {}
    for path in images:
        key = spell(path.stem)
        if key in by_key:
            raise UserError(f"{by_key[key]} and {path} would both be stored as {key!r}; rename one")
        check_is_file(path)
        by_key[key] = path
    return {key: [str(path), path.stat().st_size] for key, path in by_key.items()}


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
