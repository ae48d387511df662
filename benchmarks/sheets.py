"""Contact sheets of photographs as people have them: small JPEG files, enlarged by networks, beside bicubic.

    python -m benchmarks.sheets FOLDER LABEL=NETWORK@TAU... [--free PHOTOGRAPHS] [--docs PICTURE]

Four photographs are scikit-image's, which anybody may show; the others are files of PHOTOGRAPHS that no training has
seen. Two are enlarged as they are. The others are made a quarter of the size as MATLAB does, and saved as JPEG of
quality 75, so that the original can stand beside them. A sheet shows one place of a photograph, LR and enlarged. A
network is a file, or one of the package by its name. FOLDER gets a sheet for each photograph; --docs writes one of
scikit-image's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import skimage
import torch
from PIL import Image

from benchmarks.damaged import compressed
from srflow_plugin import SRFlowNet, bicubic_downscale, load_network
from srflow_plugin.checkpoints.shipped import find_checkpoint
from srflow_plugin.errors import UserError
from srflow_plugin.images.files import read_image, write_image
from srflow_plugin.images.pictures import comparison_grid, stacked
from srflow_plugin.images.resize import bicubic_upscale
from srflow_plugin.images.tensors import to_pixels, to_tensor
from srflow_plugin.sampling.temperature import LEARNED, Temperature, is_learned, label

SCALE, QUALITY = 4, 75
DOCS_QUALITY = 90  # what is seen are the photographs' artefacts, not the sheet's
SIDE, MARGIN = 64, 16  # in LR pixels: what is shown, and what is enlarged around it


class Photograph(NamedTuple):
    """Photograph with the place that is shown: its upper left corner in LR pixels."""

    file: str
    top: int
    left: int
    is_small: bool = False  # enlarged as it is: it has no original


SCIKIT_IMAGE = [
    Photograph("rocket.jpg", 125, 290, True),
    Photograph("astronaut.png", 85, 185, True),
    Photograph("coffee.png", 25, 62),
    Photograph("chelsea.png", 2, 24),
]
FREE = [
    Photograph("005.jpg", 235, 130),
    Photograph("015.jpg", 100, 240),
    Photograph("025.jpg", 60, 90),
    Photograph("035.jpg", 190, 220),
    Photograph("045.jpg", 150, 400),
    Photograph("055.jpg", 70, 225),
]


class Column(NamedTuple):
    """Column of a sheet."""

    label: str
    checkpoint: Path
    tau: Temperature


def column(word: str) -> Column:
    """Read LABEL=NETWORK@TAU."""
    title, _, rest = word.partition("=")
    network, _, tau = rest.rpartition("@")
    try:
        temperature: Temperature = LEARNED if is_learned(tau) else float(tau)
        return Column(f"{title}, tau {label(temperature)}", find_checkpoint(network), temperature)
    except (ValueError, UserError) as error:
        reason = error if isinstance(error, UserError) else f"LABEL=NETWORK@TAU is needed, not {word}"
        raise argparse.ArgumentTypeError(str(reason)) from None


def pictures_of(photograph: Photograph, folder: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a photograph: the LR image, and the original if there is one."""
    image = read_image(folder / photograph.file)
    if photograph.is_small:
        return image, None
    height, width = (side - side % SCALE for side in image.shape[:2])
    gt = np.ascontiguousarray(image[:height, :width])
    return compressed(bicubic_downscale(gt, SCALE), QUALITY), gt


def sheet(
    photograph: Photograph, folder: Path, columns: Sequence[Column], networks: dict[Path, SRFlowNet]
) -> np.ndarray:
    """Put one place of a photograph side by side: LR, bicubic, each network, the original if there is one."""
    lq, gt = pictures_of(photograph, folder)
    top, left = photograph.top, photograph.left
    first_row, first_column = max(0, top - MARGIN), max(0, left - MARGIN)
    around = np.ascontiguousarray(lq[first_row : top + SIDE + MARGIN, first_column : left + SIDE + MARGIN])

    def place(image: np.ndarray, scale: int, row: int, column: int) -> np.ndarray:
        return image[scale * row : scale * (row + SIDE), scale * column : scale * (column + SIDE)]

    def enlarged(images: torch.Tensor) -> np.ndarray:
        return place(to_pixels(images.flatten(0, -4)[0]), SCALE, top - first_row, left - first_column)

    made = "as it is" if gt is None else f"JPEG {QUALITY}"
    shown = [(f"{photograph.file}, {made}", place(lq, 1, top, left))]
    shown.append(("bicubic", enlarged(bicubic_upscale(to_tensor(around), SCALE))))
    for one in columns:
        drawn = networks[one.checkpoint].sample(to_tensor(around), one.tau, seed=0, resample=0.8)
        shown.append((one.label, enlarged(drawn)))
    shown += [("original", place(gt, SCALE, top, left))] if gt is not None else []
    return comparison_grid(shown, SCALE * SIDE)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("columns", nargs="+", type=column, metavar="LABEL=NETWORK@TAU")
    parser.add_argument("--free", type=Path, metavar="PHOTOGRAPHS", help="folder of 005.jpg, 015.jpg, ..., 055.jpg")
    parser.add_argument("--docs", type=Path, metavar="PICTURE", help="one sheet of scikit-image's photographs")
    args = parser.parse_args(arguments)
    networks = {one.checkpoint: load_network(one.checkpoint) for one in args.columns}
    wrong = next((path for path, network in networks.items() if network.scale != SCALE), None)
    if wrong:
        parser.error(f"{wrong} is not a network of scale {SCALE}")
    args.folder.mkdir(parents=True, exist_ok=True)
    own = Path(skimage.__file__).parent / "data"
    try:
        sheets = {one.file: sheet(one, own, args.columns, networks) for one in SCIKIT_IMAGE}
        if args.docs:
            Image.fromarray(stacked(list(sheets.values()))).save(args.docs, quality=DOCS_QUALITY)
        if args.free:
            sheets |= {one.file: sheet(one, args.free, args.columns, networks) for one in FREE}
        for name, picture in sheets.items():
            write_image(args.folder / f"{Path(name).stem}.png", picture)
        write_image(args.folder / "all.png", stacked(list(sheets.values())))
    except UserError as error:
        parser.error(str(error))
    sys.stdout.write(f"{args.folder}: {len(sheets)} sheets, and all.png of all\n")


if __name__ == "__main__":
    main()
