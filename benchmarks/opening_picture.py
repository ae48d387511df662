"""The picture that the README opens with: `python benchmarks/opening_picture.py docs/pictures/opening.jpg`.

Two photographs that scikit-image carries, downscaled as MATLAB does, and what `srflow upscale --num-samples 5` makes of
them with the networks that come with the package. Neither was used in training.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

import srflow_plugin
from srflow_plugin.images.pictures import comparison_grid, heat_map, resized, spread, stacked

EXAMPLES = [  # photograph, top, left, height, width, scale; the face is framed as the faces in training
    ("chelsea", 40, 115, 256, 256, 4),
    ("astronaut", 28, 157, 160, 160, 8),
]
SIDE = 240


def main() -> None:
    rows = []
    for name, top, left, height, width, scale in EXAMPLES:
        gt = np.ascontiguousarray(getattr(skimage.data, name)()[top : top + height, left : left + width])
        lq = srflow_plugin.bicubic_downscale(gt, scale)
        samples = srflow_plugin.upscale(lq, scale=scale, num_samples=5, seed=0)
        differences = heat_map(spread(samples), "grey levels")[:height]
        columns = [(f"{lq.shape[1]}x{lq.shape[0]} pixels", lq)]
        columns += [(f"sample {number + 1}", sample) for number, sample in enumerate(samples)]
        pictures = [(title, resized(picture, SIDE, SIDE)) for title, picture in columns]
        rows.append(comparison_grid([*pictures, ("standard deviation", resized(differences, SIDE, SIDE))], SIDE))
    path = Path(sys.argv[1])
    Image.fromarray(stacked(rows)).save(path, quality=92)
    sys.stdout.write(f"{path} is written.\n")


if __name__ == "__main__":
    main()
