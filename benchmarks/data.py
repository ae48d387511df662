"""Training data: images a second that the loader gives, and that steps need.

`python benchmarks/data.py FOLDER` cuts 12 photographs of FOLDER into tiles of 480, 240 and 160 pixels, as LMDBs and, of
480, as folders of PNG, JPEG and BMP files, and reads batches of 16 crops of 160x160 as a training does, with 0, 1 and 2
workers, all in turns. Beside these rates, of a tile: its size as a file, and the milliseconds that decoding takes. Then
it takes steps of the quick and the full training on crops of noise. Medians of all.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from basicsr.archs import build_network

from srflow_plugin.data.build import checked_images
from srflow_plugin.data.checked import close_files
from srflow_plugin.data.prepare import write_pairs
from srflow_plugin.devices import synchronize
from srflow_plugin.images.files import find_images
from srflow_plugin.options.files import load_options
from srflow_plugin.options.schema import Section
from srflow_plugin.progress import say
from srflow_plugin.training.order import Draws, training_batches

OPTIONS = Path(__file__).resolve().parents[1] / "options"
TRAININGS = {"quick": ("train_SRFlow_x4_quick.yml", None), "full, a batch of 1": ("train_SRFlow_x4.yml", 1)}
TILES = (480, 240, 160)
FORMATS = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95], ".bmp": []}  # beside PNG
SCALE, BATCH, WORKERS, MEASURED = 4, 16, (0, 1, 2), 60
CROPS = {"gt_size": 160, "use_hflip": True, "use_rot": True, "scale": SCALE, "phase": "train"}


class Source(NamedTuple):
    """Tiles in one form: a row of the table."""

    name: str
    data: Section
    kilobytes: float
    milliseconds: float  # of decoding

    @classmethod
    def of(cls, name: str, data: Section) -> Source:
        """Read tiles and decode them."""
        images = checked_images({"name": name, "type": "PairedImageDataset", **copied(data), **CROPS}, "tiles")
        sizes, times = [], []
        for path in images.dataset.paths[:MEASURED]:
            encoded = images.files.get(path["gt_path"], "gt")
            start = time.perf_counter()
            cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
            times.append(time.perf_counter() - start)
            sizes.append(len(encoded))
        close_files()
        return cls(name, data, statistics.mean(sizes) / 1e3, 1e3 * statistics.median(times))


def copied(data: Section) -> Section:
    """Copy what BasicSR's data sets change in place."""
    return {**data, "io_backend": dict(data["io_backend"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="photographs of 480x480 pixels or more")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=8, help="of a round, of each source and number of workers")
    args = parser.parse_args()
    say(f"torch {torch.__version__}, OpenCV {cv2.__version__}, {os.cpu_count()} cores")
    pins = (False, True) if torch.cuda.is_available() else (False,)
    with tempfile.TemporaryDirectory() as place:
        sources = list(make_sources(find_images(args.folder)[:12], Path(place)))
        ways = [(source, workers, pin) for source in sources for workers in WORKERS for pin in pins]
        rates: dict[Any, list[float]] = {(source.name, workers, pin): [] for source, workers, pin in ways}
        for _ in range(args.rounds):
            for source, workers, pin in ways:
                rates[source.name, workers, pin].append(rate(source.data, workers, pin, args.batches))
    for pin in pins:
        head = ["kB", "decoding, ms", *(f"{n} workers, images/s" for n in WORKERS)]
        say(f"| {'pin_memory' if pin else ''} | {' | '.join(head)} |")
        say(f"|{'---|' * (1 + len(head))}")
        for source in sources:
            row = (f"{statistics.median(rates[source.name, workers, pin]):.0f}" for workers in WORKERS)
            say(f"| {source.name} | {source.kilobytes:.0f} | {source.milliseconds:.1f} | {' | '.join(row)} |")
    for name, (file, batch) in TRAININGS.items():
        images, seconds = step(OPTIONS / file, batch)
        say(f"{name}: {seconds:.2f} s a step, {images / seconds:.1f} images a second")


def make_sources(images: list[Path], place: Path) -> Iterator[Source]:
    """Cut tiles, and write them in every form."""
    for tile in TILES:
        folders = {f"dataroot_{key}": str(place / f"{tile}_{key}.lmdb") for key in ("gt", "lq")}
        hr, lr = map(Path, folders.values())
        write_pairs(images, hr, lr, SCALE, crop_size=tile, num_workers=1)
        yield Source.of(f"LMDB, tiles of {tile}", {**folders, "io_backend": {"type": "lmdb"}})
    hr, lr = place / "png" / "gt", place / "png" / "lq"
    write_pairs(images, hr, lr, SCALE, crop_size=TILES[0], num_workers=1)
    disk = {"io_backend": {"type": "disk"}}
    yield Source.of(f"folder of PNG, tiles of {TILES[0]}", {"dataroot_gt": str(hr), "dataroot_lq": str(lr), **disk})
    for suffix, settings in FORMATS.items():
        for folder in (hr, lr):
            other = place / suffix[1:] / folder.name
            other.mkdir(parents=True)
            for file in find_images(folder):
                pixels = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR)
                cv2.imwrite(str(other / f"{file.stem}{suffix}"), pixels, settings)
        folders = {f"dataroot_{key}": str(place / suffix[1:] / key) for key in ("gt", "lq")}
        yield Source.of(f"folder of {suffix[1:].upper()}, tiles of {TILES[0]}", {**folders, **disk})


def rate(source: Section, workers: int, pin: bool, batches: int) -> float:
    """Read as a training does, after a first batch; images a second."""
    loader = {"num_worker_per_gpu": workers, "batch_size_per_gpu": BATCH, "pin_memory": pin}
    data = {"name": "tiles", "type": "PairedImageDataset", **copied(source), **loader, **CROPS}
    opt = {"datasets": {"train": data}, "dist": False, "num_gpu": 1, "rank": 0, "world_size": 1}
    ahead = 1 + 2 * workers  # so that as many are being read when the time begins and when it ends
    left = training_batches(Draws(checked_images(data, "tiles"), seed=0), opt, 0, batches + ahead)
    next(left)
    start = time.perf_counter()
    images = sum(len(batch["gt"]) for batch in islice(left, batches))
    return images / (time.perf_counter() - start)


def step(file: Path, batch: int | None) -> tuple[int, float]:
    """Take steps of an option file's training on noise: images in a batch, median of seconds."""
    opt = load_options(file)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = build_network(opt["network_g"]).to(device).train()
    data = opt["datasets"]["train"]
    count, size = batch or data["batch_size_per_gpu"], data["gt_size"]
    gt = torch.rand(count, 3, size, size, device=device)
    lq = torch.rand(count, 3, size // SCALE, size // SCALE, device=device)
    net.initialize(gt, lq)
    optimizer = torch.optim.Adam(net.parameters(), 1e-6)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        optimizer.zero_grad()
        net(gt, lq).mean().backward()
        optimizer.step()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return count, statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
