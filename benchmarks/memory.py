"""Measure how much memory ``srflow upscale`` takes for images of growing size.

    python benchmarks/memory.py [--sizes 512x512 1024x8192 ...] [--tile N] [--figure FILE]

Makes a tiny network, since only the time depends on it, and PNG files of these sizes, runs the command on each in a
process of its own, and prints seconds, the peak of the resident memory, and the size of the result. Every result is
read again, to its last row.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from srflow_plugin import SRFlowNet
from srflow_plugin.images.rows import open_rows
from srflow_plugin.images.writing import Layout, picture_written

SIZES = ["64x64", "512x512", "1024x1024", "1024x2048", "1024x8192", "2048x2048", "5000x3750"]
BAND = 64
TINY = {"num_feat": 4, "num_grow_ch": 2, "num_block": 1, "feature_blocks": [0], "num_steps": 1, "hidden_channels": 4}


class Measured(NamedTuple):
    """One image: its pixels, and what enlarging it took."""

    pixels: int
    seconds: float
    peak: int  # bytes
    result: int  # bytes


def write_image(path: Path, width: int, height: int) -> None:
    """Write a picture of waves, a band at a time."""
    x = np.arange(width)
    with picture_written(path, Layout(height, width, 3)) as put:
        for top in range(0, height, BAND):
            y = np.arange(top, min(top + BAND, height))[:, None]
            waves = [np.sin(x / 31 + y / (17 + phase)) for phase in range(3)]
            put((127.5 + 100 * np.dstack(waves)).astype(np.uint8))


def write_network(path: Path) -> None:
    torch.manual_seed(0)
    torch.save({"params": SRFlowNet(**TINY).state_dict()}, path)  # type: ignore[arg-type]


def enlarge(image: Path, network: Path, output: Path, options: list[str]) -> tuple[float, int]:
    """Run the command: seconds, and the peak of its memory."""
    command = [sys.executable, "-m", "srflow_plugin", "upscale", str(image), "-o", str(output), *options]
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--checkpoint", str(network)])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def check(image: Path, result: Path) -> None:
    """Read the result to its last row: it is whole, and none of it is black."""
    small, large = open_rows(image), open_rows(result, max_pixels=2**40)
    assert (large.height, large.width) == (4 * small.height, 4 * small.width)
    rows = 0
    for band in large.bands():
        rows += len(band.rgb)
        assert band.rgb.std() > 0.01
    assert rows == large.height


def measure(width: int, height: int, options: list[str], folder: Path) -> Measured:
    image, result = folder / "image.png", folder / "out" / "image.png"
    write_image(image, width, height)
    seconds, peak = enlarge(image, folder / "net.pth", folder / "out", options)
    check(image, result)
    measured = Measured(width * height, seconds, peak, result.stat().st_size)
    result.unlink()
    return measured


def draw(rows: list[Measured], figure: Path) -> None:
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    rows = sorted(rows)
    megapixels = [row.pixels / 1e6 for row in rows]
    axes.plot(megapixels, [row.peak / 2**30 for row in rows], "o-", label="peak of the resident memory")
    axes.plot(megapixels, [16 * 3 * row.pixels / 2**30 for row in rows], ":", color="grey", label="the result's pixels")
    axes.set(xscale="log", yscale="log", xlabel="image, megapixels", ylabel="GiB", title="srflow upscale, x4")
    axes.grid(alpha=0.3)
    axes.legend()
    plt.savefig(figure, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="WIDTHxHEIGHT")
    parser.add_argument("--tile", default="256")
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    sizes = [tuple(map(int, size.split("x"))) for size in args.sizes]
    rows = []
    sys.stdout.write("| image | seconds | peak memory, MiB | result, MiB |\n|---|---|---|---|\n")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        write_network(folder / "net.pth")
        for width, height in sizes:
            row = measure(width, height, ["--tile", args.tile, "--temperature", "0.1"], folder)
            rows.append(row)
            sizes_in_mib = f"{row.peak / 2**20:.0f} | {row.result / 2**20:.0f}"
            sys.stdout.write(f"| {width} x {height} | {row.seconds:.0f} | {sizes_in_mib} |\n")
            sys.stdout.flush()
    if args.figure:
        draw(rows, args.figure)


if __name__ == "__main__":
    main()
