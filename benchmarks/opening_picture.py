"""The picture that the README opens with: `python benchmarks/opening_picture.py docs/pictures/opening.jpg`.

Two photographs that scikit-image carries, downscaled as MATLAB does, and what `srflow upscale` makes of them with the
networks that come with the package, beside bicubic and the original. Neither was used in training.
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
SIDE = 256
SHOWN = 3  # of five samples


def main() -> None:
    rows = []
    for name, top, left, height, width, scale in EXAMPLES:
        gt = np.ascontiguousarray(getattr(skimage.data, name)()[top : top + height, left : left + width])
        lq = srflow_plugin.bicubic_downscale(gt, scale)
        bicubic = np.asarray(Image.fromarray(lq).resize((width, height), Image.Resampling.BICUBIC))
        samples = srflow_plugin.upscale(lq, scale=scale, num_samples=5, seed=0)
        differences = spread(samples)
        columns = [
            (f"{lq.shape[1]}x{lq.shape[0]} pixels", lq),
            ("bicubic", bicubic),
            ("temperature 0", srflow_plugin.upscale(lq, scale=scale, temperature=0)[0]),
            *((f"sample {number + 1}", sample) for number, sample in enumerate(samples[:SHOWN])),
            ("original", gt),
            (f"std of samples, to {np.percentile(differences, 99.5):.0f} of 255", heat_map(differences, "")[:height]),
        ]
        rows.append(comparison_grid([(title, resized(picture, SIDE, SIDE)) for title, picture in columns], SIDE))
    path = Path(sys.argv[1])
    Image.fromarray(stacked(rows)).save(path, quality=85)
    sys.stdout.write(f"{path} is written.\n")


if __name__ == "__main__":
    main()
