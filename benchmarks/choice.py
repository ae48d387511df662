"""Networks that pictures choose: clean ones, and the same with JPEG compression or noise.

    python benchmarks/choice.py FOLDER ... [--hr FOLDER ...]

Folders have LR images; those of --hr are made smaller by four first. Prints how many of the pictures choose the network
for real photographs, and the median quality and noise that are found in those with such damage.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from srflow_plugin import bicubic_downscale
from srflow_plugin.images.damage import Damage, damage_of
from srflow_plugin.images.files import find_images, read_image
from srflow_plugin.images.photographs import from_array
from srflow_plugin.images.rows import rows_of

SCALE = 4


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Compress pixels and decode them."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def noisy(image: np.ndarray, sigma: float, is_grey: bool = False) -> np.ndarray:
    """Add noise, of each colour its own or of all the same."""
    shape = (*image.shape[:2], 1 if is_grey else 3)
    result: np.ndarray = (image + np.random.default_rng(0).normal(0, sigma, shape)).round().clip(0, 255)
    return result.astype(np.uint8)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "clean": lambda image: image,
    **{f"JPEG {quality}": partial(jpeg, quality=quality) for quality in (50, 75, 90, 95, 98)},
    "JPEG 90, cut": lambda image: jpeg(image, 90)[3:, 5:],
    **{f"noise {sigma}": partial(noisy, sigma=sigma) for sigma in (3, 5, 10, 15)},
    **{f"grey noise {sigma}": partial(noisy, sigma=sigma, is_grey=True) for sigma in (5, 10, 15)},
    "noise 5, JPEG 90": lambda image: jpeg(noisy(image, 5), 90),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--hr", nargs="+", type=Path, default=[], metavar="FOLDER")
    args = parser.parse_args(argv)
    images = list(read([*args.folders], args.hr))
    sys.stdout.write(f"| {len(images)} pictures | choose the network for real ones | JPEG quality | noise |\n")
    sys.stdout.write("|---|---|---|---|\n")
    for name, change in CHANGES.items():
        found = [damage_of(rows_of(from_array(change(image)))) for image in images]
        sys.stdout.write(row(name, found))
        sys.stdout.flush()


def read(folders: Sequence[Path], hr_folders: Sequence[Path]) -> Iterator[np.ndarray]:
    """Read the images of folders, those of the second made smaller."""
    for folder in folders:
        yield from map(read_image, find_images(folder))
    for path in (path for folder in hr_folders for path in find_images(folder)):
        image = read_image(path)
        height, width = (length - length % SCALE for length in image.shape[:2])
        yield bicubic_downscale(np.ascontiguousarray(image[:height, :width]), SCALE)


def row(name: str, found: Sequence[Damage]) -> str:
    """Make a row of the table."""
    real = [one for one in found if not one.is_slight]
    qualities = [one.quality for one in found if one.quality is not None]
    quality = f"{statistics.median(qualities):.0f} ({len(qualities)} found)" if qualities else "none found"
    noise = statistics.median(one.noise for one in found)
    return f"| {name} | {len(real)} of {len(found)} | {quality} | {noise:.1f} |\n"


if __name__ == "__main__":
    main()
