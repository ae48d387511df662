"""The picture that the README opens with: `python -m benchmarks.opening_picture docs/pictures/opening.jpg`.

Two photographs that scikit-image carries, downscaled as MATLAB does, and what `srflow upscale` makes of them with the
networks that come with the package, beside bicubic and the original. `--real NETWORK` adds a third one, saved as JPEG
once it was small, and enlarged by a network for such files. None was used in training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import skimage.data
from PIL import Image

import srflow_plugin
from benchmarks.damaged import compressed
from srflow_plugin.images.pictures import comparison_grid, heat_map, resized, spread, stacked

SIDE = 256
SHOWN = 3  # of five samples
QUALITY = 75  # of JPEG


class Example(NamedTuple):
    """Part of a photograph, and by how much it is made smaller and larger again."""

    photograph: str
    top: int
    left: int
    side: int
    scale: int


CLEAN = [Example("chelsea", 40, 115, 256, 4), Example("astronaut", 28, 157, 160, 8)]  # as faces in training are framed
REAL = Example("coffee", 60, 240, 256, 4)


def row_of(example: Example, checkpoint: str | None = None, quality: int | None = None) -> np.ndarray:
    """Draw a row: LR image, bicubic, temperature 0, samples, original, and where samples differ."""
    name, top, left, side, scale = example
    gt = np.ascontiguousarray(getattr(skimage.data, name)()[top : top + side, left : left + side])
    lq = srflow_plugin.bicubic_downscale(gt, scale)
    title = f"{lq.shape[1]}x{lq.shape[0]} pixels"
    if quality:
        lq, title = compressed(lq, quality), f"{title}, JPEG {quality}"
    bicubic = np.asarray(Image.fromarray(lq).resize((side, side), Image.Resampling.BICUBIC))
    smooth = srflow_plugin.upscale(lq, scale=scale, checkpoint=checkpoint, temperature=0)[0]
    samples = srflow_plugin.upscale(lq, scale=scale, checkpoint=checkpoint, num_samples=5, seed=0)
    differences = spread(samples)
    columns = [
        (title, lq),
        ("bicubic", bicubic),
        ("temperature 0", smooth),
        *((f"sample {number + 1}", sample) for number, sample in enumerate(samples[:SHOWN])),
        ("original", gt),
        (f"std of samples, to {np.percentile(differences, 99.5):.0f} of 255", heat_map(differences, "")[:side]),
    ]
    return comparison_grid([(title, resized(picture, SIDE, SIDE)) for title, picture in columns], SIDE)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, metavar="PICTURE")
    parser.add_argument("--real", metavar="NETWORK", help="x4, of the third row: a file, or one of the package")
    args = parser.parse_args(arguments)
    rows = [row_of(example) for example in CLEAN]
    rows += [row_of(REAL, args.real, QUALITY)] if args.real else []
    Image.fromarray(stacked(rows)).save(args.picture, quality=85)
    sys.stdout.write(f"{args.picture} is written.\n")


if __name__ == "__main__":
    main()
