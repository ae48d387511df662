"""MATLAB's downscale: files matched bit for bit, and speed beside BasicSR's imresize.

`python benchmarks/downscale.py HR LRx4:4:replicate [HR LR:scale:border ...]`: folders of images and of what MATLAB made
of them, with the same names. The speed is of 2040x1356 pixels on one core, medians of rounds taken in turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from srflow_plugin import bicubic_downscale
from srflow_plugin.images.files import find_images, read_image

# isort: split
from basicsr.utils.matlab_functions import imresize

ROUNDS = 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", help="pairs: HR LR:scale:border")
    folders = parser.parse_args().folders
    for hr, what in zip(folders[::2], folders[1::2], strict=True):
        lr, scale, border = what.split(":")
        names = [path.name for path in find_images(Path(hr))]
        matched = sum(matches(Path(hr) / name, Path(lr) / name, int(scale), border) for name in names)
        sys.stdout.write(f"{lr} x{scale} {border}: {matched} of {len(names)} files are the same, bit for bit\n")

    torch.set_num_threads(1)
    image = np.random.default_rng(0).integers(0, 256, (1356, 2040, 3), dtype=np.uint8)
    times: dict[str, list[float]] = {"bicubic_downscale": [], "BasicSR's imresize": []}
    for _ in range(ROUNDS + 1):
        for name, function in zip(times, (lambda: bicubic_downscale(image, 4), lambda: of_basicsr(image)), strict=True):
            start = time.perf_counter()
            function()  # type: ignore[no-untyped-call]
            times[name].append(time.perf_counter() - start)
    megapixels = image.shape[0] * image.shape[1] / 1e6
    seconds = {name: statistics.median(rounds[1:]) for name, rounds in times.items()}
    for name, median in seconds.items():
        sys.stdout.write(f"{name}: {megapixels / median:.0f} megapixels/s\n")
    ours, theirs = seconds.values()
    sys.stdout.write(f"ratio {theirs / ours:.1f}\n")


def matches(hr: Path, lr: Path, scale: int, border: Any) -> bool:
    return np.array_equal(bicubic_downscale(read_image(hr), scale, border), read_image(lr))


def of_basicsr(image: np.ndarray) -> np.ndarray:
    """Downscale from and to uint8, as a data preparation would."""
    small: np.ndarray = (imresize(image / np.float32(255), 0.25) * 255).round().clip(0, 255).astype(np.uint8)
    return small


if __name__ == "__main__":
    main()
