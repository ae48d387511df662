"""Train the networks that come with the package, from folders of images to small files, by one command.

`python recipes/train.py --photographs BSDS400 T91 --real FOLDER --faces faces/train -o DIR` prepares the data,
pretrains each encoder with L1 (BasicSR's SRModel), trains the flow with NLL, the encoder frozen at first, then both,
and packs the mean of the last weights: `DIR/srflow_x4.safetensors` of --photographs, `DIR/srflow_x4_real.safetensors`
of --real, which begins with the package's first, and `DIR/srflow_x8_face.safetensors`. Killed, the same command goes
on. Some images of each first folder are held out: every twentieth photograph, every tenth of --real, every 48th face.
docs/results/how_chosen.md has curves and figures.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from srflow_plugin.images.files import find_images, read_image, write_image

HERE = Path(__file__).parent.resolve()
SMALLEST = 96  # pixels a side of a photograph: the patches that the encoder is trained on
SIDE = 400  # pixels a side of the crops of --real: what RealESRGANDataset takes, and mirrors smaller ones to
SIZES = 1, 1 / 2, 1 / 3  # each photograph of --real is used in: the same things near and far
LUMA = 0.299, 0.587, 0.114
LEAST_DETAIL = 6.0  # grey levels; of a crop with less, sky or blurred ground, there is little to learn
STAGES = {  # of each file: option files, one after the other
    "srflow_x4": ("RRDB_x4", "SRFlow_x4", "SRFlow_x4_finish"),
    "srflow_x4_real": ("SRFlow_x4_real",),
    "srflow_x8_face": ("RRDB_x8_face", "SRFlow_x8_face", "SRFlow_x8_face_finish", "SRFlow_x8_face_image"),
}
STORAGE = {"srflow_x4": "half", "srflow_x4_real": "half", "srflow_x8_face": "compact"}  # 18 MB together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, nargs="+", default=[], help="folders")
    parser.add_argument("--real", type=Path, nargs="+", default=[], help="folders; photographs of 400 pixels and more")
    parser.add_argument("--faces", type=Path, nargs="+", default=[], help="folders; the middle 160x160 is used")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    images = args.output / "images"
    images.mkdir(parents=True, exist_ok=True)
    if args.photographs:
        link(args.photographs, images / "photographs", every=20, smallest=SMALLEST)
        prepare(args.output, "photographs", "--scale", "4", "--crop-size", "160")
        train(args.output, "srflow_x4")
    if args.real:
        link(args.real, images / "real", every=10, smallest=SIDE)
        cut(images / "real" / "train", images / "crops")
        prepare(args.output, "real", "--scale", "4", parts=["held"])
        train(args.output, "srflow_x4_real")
    if args.faces:
        link(args.faces, images / "faces", every=48, smallest=160)
        prepare(args.output, "faces", "--scale", "8", "--center-crop", "160")
        train(args.output, "srflow_x8_face")


def link(sources: list[Path], target: Path, every: int, smallest: int) -> None:
    """Sort images into ``target``/train and ``target``/held by links."""
    shutil.rmtree(target, ignore_errors=True)
    for source in sources:
        for number, path in enumerate(find_images(source)):
            if min(read_image(path).shape[:2]) >= smallest:
                is_held = source == sources[0] and number % every == every // 2
                link = target / ("held" if is_held else "train") / path.name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path.resolve())


def cut(source: Path, target: Path) -> None:
    """Cut photographs, in several sizes, into crops with something to learn from."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in find_images(source):
        image = Image.fromarray(read_image(path))
        for number, size in enumerate(SIZES):
            shape = round(image.width * size), round(image.height * size)
            pixels = np.asarray(image.resize(shape, Image.Resampling.LANCZOS) if size < 1 else image)
            for top, left in corners(*pixels.shape[:2]):
                crop = pixels[top : top + SIDE, left : left + SIDE]
                if detail(crop) >= LEAST_DETAIL:
                    write_image(target / f"{path.stem}_{number}_{top}_{left}.png", crop)


def corners(height: int, width: int) -> list[tuple[int, int]]:
    """Spread crops over a picture evenly; none where it is too small."""
    if min(height, width) < SIDE:
        return []
    tops, lefts = (
        np.linspace(0, length - SIDE, max(1, round(length / SIDE))).round().astype(int) for length in (height, width)
    )
    return [(int(top), int(left)) for top in tops for left in lefts]


def detail(image: np.ndarray, scale: int = 4) -> float:
    """Measure what a downscale takes away, in grey levels: the standard deviation within blocks of ``scale``."""
    blocks = (image @ LUMA).reshape(SIDE // scale, scale, SIDE // scale, scale)
    return float(np.sqrt(blocks.var(axis=(1, 3)).mean()))


def prepare(output: Path, name: str, *options: str, parts: Sequence[str] = ("train", "held")) -> None:
    for part in parts:
        folder = Path("images", name, part)
        run(output, "prepare", str(folder), "-o", f"datasets/{name}_{part}", *options)


def train(output: Path, name: str) -> None:
    """Train stage after stage; pack the file."""
    for stage in STAGES[name]:
        run(output, "train", "-opt", str(HERE / f"{stage}.yml"), "--auto_resume")
    file = output / f"{name}.safetensors"
    file.unlink(missing_ok=True)
    run(output, "convert", f"experiments/{stage}/models/net_g_latest.pth", file.name, "--storage", STORAGE[name])


def run(folder: Path, *arguments: str) -> None:
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    subprocess.run([sys.executable, "-m", "srflow_plugin", *arguments], cwd=folder, env=environment, check=True)


if __name__ == "__main__":
    main()
