"""The picture that the README opens with: `python benchmarks/opening_picture.py docs/pictures/opening.jpg`.

Two photographs that scikit-image carries, downscaled as MATLAB does, and what `srflow upscale --num-samples 5` makes of
them with the networks that come with the package. Neither was used in training.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import skimage.data

import srflow_plugin
from srflow_plugin.pictures import comparison_grid, heat_map, stacked

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
        spread = heat_map(samples.astype(np.float64).std(0).mean(2), "grey levels")[:height]
        columns = [(f"{lq.shape[1]}x{lq.shape[0]} pixels", lq)]
        columns += [(f"sample {number + 1}", sample) for number, sample in enumerate(samples)]
        pictures = [(title, enlarged(picture[..., ::-1])) for title, picture in columns]
        rows.append(comparison_grid([*pictures, ("standard deviation", enlarged(spread))], SIDE))
    path = Path(sys.argv[1])
    cv2.imwrite(str(path), stacked(rows), [cv2.IMWRITE_JPEG_QUALITY, 92])
    sys.stdout.write(f"{path} is written.\n")


def enlarged(picture: np.ndarray) -> np.ndarray:
    """As large as the others, its pixels to be seen."""
    return cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)


if __name__ == "__main__":
    main()
