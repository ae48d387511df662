"""`srflow prepare` on a DF2K-shaped set, killed at random and started again: is it complete, and how fast is it?

`python benchmarks/prepare.py FOLDER --images 1000 --kills 10`: cuts images of 640x640 out of those in FOLDER enlarged,
prepares them into 320x320 tiles with SIGKILL at random moments, compares with a run that nobody disturbed, which is
timed, and tiles of some images with the images.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import lmdb
import numpy as np
from tqdm import tqdm

from srflow_plugin import bicubic_downscale
from srflow_plugin.data.checked import decode_image, read_bgr
from srflow_plugin.images.files import find_images

SIDE, TILE, SCALE = 640, 320, 4
CHECKED = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as parent:
        images = Path(parent) / "images"
        images.mkdir()
        sources = find_images(args.folder)
        for number in tqdm(range(args.images), unit="image", desc="making images"):
            image = read_bgr(sources[number % len(sources)])
            factor = max(2.0, SIDE / min(image.shape[:2]))
            image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
            top, left = (rng.randrange(size - SIDE + 1) for size in image.shape[:2])
            cv2.imwrite(str(images / f"{number:04d}.png"), image[top : top + SIDE, left : left + SIDE])
        size = sum(path.stat().st_size for path in images.iterdir())

        start = time.perf_counter()
        prepare(images, Path(parent) / "whole").wait()
        seconds = time.perf_counter() - start
        for _ in range(args.kills):
            process = prepare(images, Path(parent) / "killed")
            time.sleep(rng.uniform(0.5, 2 * seconds / (args.kills + 1)))
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert prepare(images, Path(parent) / "killed").wait() == 0
        tiles = [check(Path(parent) / f"killed_{kind}.lmdb", Path(parent) / f"whole_{kind}.lmdb") for kind in KINDS]
        rgb = check_tiles(images, Path(parent) / "killed", rng)
        sys.stdout.write(
            f"{args.images} images of {SIDE}x{SIDE}, {size / 1e6:.0f} MB, in {seconds:.1f} s, start included: "
            f"{args.images / seconds:.1f} images/s, {size / 1e6 / seconds:.1f} MB/s\n"
            f"{args.kills} kills: {tiles[0]} HR and {tiles[1]} LR tiles, byte for byte those of the run in one go; "
            f"{rgb} tiles compared with their images\n"
        )


KINDS = ("HR", f"LRx{SCALE}")


def prepare(images: Path, output: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "srflow_plugin",
        "prepare",
        str(images),
        "-o",
        str(output),
        "--crop-size",
        str(TILE),
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def check(one: Path, other: Path) -> int:
    """Check that both hold the same and list each image once; return their number."""
    contents = []
    for folder in (one, other):
        with lmdb.open(str(folder), readonly=True, lock=False) as database, database.begin() as transaction:
            contents.append([(bytes(key), bytes(value)) for key, value in transaction.cursor()])
    assert contents[0] == contents[1]
    lines = [folder.joinpath("meta_info.txt").read_text().splitlines() for folder in (one, other)]
    assert lines[0] == lines[1] and len(set(lines[0])) == len(lines[0]) == len(contents[0])
    return len(contents[0])


def check_tiles(images: Path, output: Path, rng: random.Random) -> int:
    """Tiles of some images are what they should be; how many."""
    compared = 0
    for path in rng.sample(find_images(images), CHECKED):
        image = read_bgr(path)
        for kind, whole, side in zip(
            KINDS, (image, bicubic_downscale(image, SCALE)), (TILE, TILE // SCALE), strict=True
        ):
            with lmdb.open(f"{output}_{kind}.lmdb", readonly=True, lock=False) as database, database.begin() as reader:
                for number in range(4):
                    png = reader.get(f"{path.stem}_s{number + 1:03d}".encode())
                    top, left = side * (number // 2), side * (number % 2)
                    tile = decode_image(png or b"", path.name)
                    assert np.array_equal(tile, whole[top : top + side, left : left + side])
                    compared += 1
    return compared


if __name__ == "__main__":
    main()
