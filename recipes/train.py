"""Train the networks that come with the package, from folders of images to small files, by one command.

`python recipes/train.py --photographs FOLDER --real --faces faces/train -o DIR` prepares the data, pretrains each
encoder with L1 (BasicSR's SRModel), trains the flow with NLL, the encoder frozen, then both, with a loss of the tau = 0
image beside the NLL, and packs the mean of the last weights: `DIR/srflow_x4.safetensors`, with a learned prior,
`DIR/srflow_x8_face.safetensors`, and with --real `DIR/srflow_x4_real.safetensors`, which begins with the flow of the
first. Killed, the same command goes on. Of the first folder every tenth photograph and every 48th face is held out.
docs/results/how_chosen.md has curves and figures.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from srflow_plugin.images.files import find_images, read_image, write_image

HERE = Path(__file__).parent.resolve()
CROP = 160  # pixels a side of the crops that LMDBs hold, and of the faces
REAL_CROP = 400  # of those that are damaged: what RealESRGANDataset takes, and mirrors smaller ones to
SIZES = {CROP: (1, 3 / 4, 1 / 2, 1 / 3), REAL_CROP: (1, 1 / 2, 1 / 3)}  # of a photograph: the same things near and far
LUMA = 0.299, 0.587, 0.114
LEAST_DETAIL = 6.0  # grey levels; of a crop with less, sky or blurred ground, there is little to learn
STAGES = {  # of each file: option files, one after the other
    "srflow_x4": (
        "RRDB_x4",
        "SRFlow_x4",
        "SRFlow_x4_image",
        "SRFlow_x4_finish",
        "SRFlow_x4_consistent",
        "SRFlow_x4_prior",
    ),
    "srflow_x4_real": ("RRDB_x4", "SRFlow_x4", "SRFlow_x4_real", "SRFlow_x4_real_finish"),
    "srflow_x8_face": ("RRDB_x8_face", "SRFlow_x8_face", "SRFlow_x8_face_finish", "SRFlow_x8_face_image"),
}
STORAGE = {"srflow_x4": "half", "srflow_x4_real": "half", "srflow_x8_face": "compact"}  # 18 MB together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, nargs="+", default=[], help="folders; 160 pixels a side and more")
    parser.add_argument("--real", action="store_true", help="train the network for real photographs with them, too")
    parser.add_argument("--faces", type=Path, nargs="+", default=[], help="folders; the middle 160x160 is used")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    if not (args.photographs or args.faces):
        parser.error("nothing to train on: name folders by --photographs or --faces")
    if args.real and not args.photographs:
        parser.error("--real trains with the photographs of --photographs: name their folders")
    images = args.output / "images"
    images.mkdir(parents=True, exist_ok=True)
    if args.photographs:
        link(args.photographs, images / "photographs", every=10)
        cut(images / "photographs/train", images / "crops", CROP)
        prepare(args.output, "crops", "photographs_train", "--scale", "4")
        prepare(args.output, "photographs/held", "photographs_held", "--scale", "4", "--crop-size", str(CROP))
        train(args.output, "srflow_x4")
    if args.photographs and args.real:
        cut(images / "photographs/train", images / "crops_400", REAL_CROP)
        train(args.output, "srflow_x4_real")
    if args.faces:
        link(args.faces, images / "faces", every=48)
        for part in ("train", "held"):
            prepare(args.output, f"faces/{part}", f"faces_{part}", "--scale", "8", "--center-crop", str(CROP))
        train(args.output, "srflow_x8_face")


def link(sources: list[Path], target: Path, every: int) -> None:
    """Sort images into ``target``/train and ``target``/held by links."""
    shutil.rmtree(target, ignore_errors=True)
    for source in sources:
        for number, path in enumerate(find_images(source)):
            if min(read_image(path).shape[:2]) >= CROP:
                is_held = source == sources[0] and number % every == every // 2
                link = target / ("held" if is_held else "train") / path.name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path.resolve())


def cut(source: Path, target: Path, side: int) -> None:
    """Cut photographs, in several sizes, into crops with something to learn from."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in tqdm(find_images(source), desc=f"Cut into {target}"):
        image = Image.fromarray(read_image(path))
        for number, size in enumerate(SIZES[side]):
            shape = round(image.width * size), round(image.height * size)
            pixels = np.asarray(image.resize(shape, Image.Resampling.LANCZOS) if size < 1 else image)
            for top, left in corners(len(pixels), pixels.shape[1], side):
                crop = pixels[top : top + side, left : left + side]
                if detail(crop) >= LEAST_DETAIL:
                    write_image(target / f"{path.stem}_{number}_{top}_{left}.png", crop)


def corners(height: int, width: int, side: int) -> list[tuple[int, int]]:
    """Spread crops over a picture evenly; none where it is too small."""
    if min(height, width) < side:
        return []
    tops, lefts = (
        np.linspace(0, length - side, max(1, round(length / side))).round().astype(int) for length in (height, width)
    )
    return [(int(top), int(left)) for top in tops for left in lefts]


def detail(crop: np.ndarray, scale: int = 4) -> float:
    """Measure what a downscale takes away, in grey levels: the standard deviation within blocks of ``scale``."""
    blocks = (crop @ LUMA).reshape(len(crop) // scale, scale, -1, scale)
    return float(np.sqrt(blocks.var(axis=(1, 3)).mean()))


def prepare(output: Path, folder: str, name: str, *options: str) -> None:
    run(output, "prepare", str(Path("images", folder)), "-o", f"datasets/{name}", *options)


def train(output: Path, name: str) -> None:
    """Train stage after stage, those that are done left out; pack the file."""
    for stage in STAGES[name]:
        last = f"experiments/{stage}/models/net_g_latest.pth"
        if not (output / last).exists():
            run(output, "train", "-opt", str(HERE / f"{stage}.yml"), "--auto_resume")
    file = output / f"{name}.safetensors"
    file.unlink(missing_ok=True)
    run(output, "convert", last, file.name, "--storage", STORAGE[name])


def run(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "srflow_plugin", *arguments], cwd=folder, check=True)


if __name__ == "__main__":
    main()
