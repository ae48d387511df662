"""Train the networks that come with the package, from folders of images to small files, by one command.

`python recipes/train.py --photographs BSDS400 T91 --faces faces/train -o DIR` prepares LMDBs, pretrains each encoder
with L1 (BasicSR's SRModel), trains the flow with NLL, the encoder frozen at first, then both in float32, and packs
the mean of the last weights as `DIR/srflow_x4.safetensors` and `DIR/srflow_x8_face.safetensors`. Killed, the same
command goes on. Of the first folder every twentieth photograph and every 48th face is held out.
docs/results/how_chosen.md has curves and figures.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from srflow_plugin.images.files import find_images, read_image

HERE = Path(__file__).parent.resolve()
SMALLEST = 96  # pixels a side of a photograph: the patches that the encoder is trained on
STORAGE = {"x4": "half", "x8_face": "compact"}  # 12 MB together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, nargs="+", default=[], help="folders")
    parser.add_argument("--faces", type=Path, nargs="+", default=[], help="folders; the middle 160x160 is used")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    if args.photographs:
        link(args.photographs, args.output / "images" / "photographs", every=20, smallest=SMALLEST)
        prepare(args.output, "photographs", "--scale", "4", "--crop-size", "160")
        train(args.output, "x4")
    if args.faces:
        link(args.faces, args.output / "images" / "faces", every=48, smallest=160)
        prepare(args.output, "faces", "--scale", "8", "--center-crop", "160")
        train(args.output, "x8_face")


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


def prepare(output: Path, name: str, *options: str) -> None:
    for part in ("train", "held"):
        folder = Path("images", name, part)
        run(output, "prepare", str(folder), "-o", f"datasets/{name}_{part}", *options)


def train(output: Path, name: str) -> None:
    """Train the encoder, then the flow, then both in full precision; pack the file."""
    for stage in (f"RRDB_{name}", f"SRFlow_{name}", f"SRFlow_{name}_finish"):
        run(output, "train", "-opt", str(HERE / f"{stage}.yml"), "--auto_resume")
    file = output / f"srflow_{name}.safetensors"
    file.unlink(missing_ok=True)
    checkpoint = f"experiments/SRFlow_{name}_finish/models/net_g_latest.pth"
    run(output, "convert", checkpoint, file.name, "--storage", STORAGE[name])


def run(folder: Path, *arguments: str) -> None:
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    subprocess.run([sys.executable, "-m", "srflow_plugin", *arguments], cwd=folder, env=environment, check=True)


if __name__ == "__main__":
    main()
