"""ONNX files of the package's networks: size, exactness at five sizes, time beside PyTorch.

    python -m benchmarks.export FOLDER [--network srflow_x4 srflow_x8_face] [--rounds 7] [--side 64] [--threads 2]

Writes the files into FOLDER, unless they are there, and prints a table for each network. LR images are photographs of
scikit-image, downscaled; latents have temperature 0.8. Time: one image of side x side, PyTorch and onnxruntime in
turns, with the same number of threads; medians of the ratio within a round, smallest and largest.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from skimage.data import astronaut, chelsea
from torch import Tensor

from benchmarks._measure import machine, ratios, take_turns
from srflow_plugin import SRFlowNet, bicubic_downscale, load_network, upscale
from srflow_plugin.images.tensors import to_pixels, to_tensor
from srflow_plugin.integrations.exported import PRECISIONS
from srflow_plugin.integrations.onnx import OPSET, files_of, run_session, session_of, write_onnx
from srflow_plugin.sampling.latents import Latents

NETWORKS = ("srflow_x4", "srflow_x8_face")
SIZES = ((1, 1), (17, 23), (64, 48), (128, 128), (97, 131))  # height, width of LR images
PHOTOGRAPHS = {"srflow_x4": chelsea, "srflow_x8_face": astronaut}
TEMPERATURE, SEED = 0.8, 0


def photograph(name: str, height: int, width: int) -> np.ndarray:
    """Cut an LR image out of a photograph: uint8 (height, width, 3)."""
    image = bicubic_downscale(PHOTOGRAPHS[name]()[:, :450], 2)
    part: np.ndarray = np.ascontiguousarray(image[:height, :width])
    return part


def latents_of(network: SRFlowNet, height: int, width: int) -> list[Tensor]:
    """Draw the latents of a sample: those of ``srflow upscale --seed 0``."""
    size = tuple(-(-length // network.lq_multiple) * network.lq_multiple for length in (height, width))
    drawn = Latents(network.latent_shapes(height, width), (size[0], size[1]), [SEED], 1, [0])
    return [TEMPERATURE * level for level in drawn.window((slice(0, size[0]), slice(0, size[1])))]


def report(name: str, precision: str, rounds: int, side: int, folder: Path) -> Iterator[str]:
    """Write and measure the files of one network, line by line of a table."""
    network = load_network(name)
    files = files_of(folder / f"{name}_{precision}.onnx")
    start = time.perf_counter()
    if not all(file.exists() for file in files):
        write_onnx(network, files[0], precision)  # type: ignore[arg-type]
    yield f"\n| {name}, {precision} | temperature 0 | latents |\n|---|---|---|"
    yield f"| MB | {files[0].stat().st_size / 1e6:.1f} | {files[1].stat().st_size / 1e6:.1f} |"
    yield f"| seconds to write both | {time.perf_counter() - start:.0f} | |"
    sessions = [session_of(file.read_bytes(), torch.get_num_threads()) for file in files]
    for height, width in SIZES:
        lr = to_tensor(photograph(name, height, width))
        latents = latents_of(network, height, width)
        errors = []
        for session, own in zip(sessions, ([torch.zeros_like(x) for x in latents], latents), strict=True):
            with torch.no_grad():
                expected = network.decode(own, lr).numpy()
            errors.append(float(np.abs(run_session(session, [lr, *own]) - expected).max()))
        yield f"| largest error, {height}x{width} | {errors[0]:.1e} | {errors[1]:.1e} |"
    yield pictures(name, network, sessions)
    yield from times(name, network, sessions, rounds, side)


def pictures(name: str, network: SRFlowNet, sessions: list[Any]) -> str:
    """Compare with the pictures of ``srflow upscale``, in grey levels."""
    height, width = SIZES[2]
    image, differences = photograph(name, height, width), []
    for session, temperature in zip(sessions, (0, TEMPERATURE), strict=True):
        expected = upscale(image, temperature, checkpoint=name, seed=SEED, precision="float32", device="cpu")[0]
        given = run_session(session, [to_tensor(image), *latents_of(network, height, width)])
        apart = np.abs(to_pixels(torch.from_numpy(given[0])).astype(int) - expected)
        differences.append(f"{apart.max()} ({100 * (apart > 0).mean():.2f} %)")
    return f"| grey levels apart from `srflow upscale`, at most (share of values) | {' | '.join(differences)} |"


def times(name: str, network: SRFlowNet, sessions: list[Any], rounds: int, side: int) -> Iterator[str]:
    """Time both, in turns."""
    lr, latents = to_tensor(photograph(name, side, side)), latents_of(network, side, side)

    def by_torch(own: list[Tensor]) -> None:
        with torch.no_grad():
            network.decode(own, lr)

    cells = []
    for session, own in zip(sessions, ([torch.zeros_like(x) for x in latents], latents), strict=True):
        contestants: dict[str, Callable[[], object]] = {
            "torch": partial(by_torch, own),
            "onnxruntime": partial(run_session, session, [lr, *own]),
        }
        taken = take_turns(contestants, rounds, "cpu")
        median, low, high = ratios(taken, taken["torch"])["onnxruntime"]
        cells.append(f"{median:.2f} ({low:.2f} - {high:.2f})")
    yield f"| onnxruntime's time, in PyTorch's, {side}x{side} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--network", choices=NETWORKS, nargs="+", default=NETWORKS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of both")
    parser.add_argument("--side", type=int, default=64, help="of the LR image whose seconds are taken")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sys.stdout.write(f"{machine('cpu')}, onnxruntime {onnxruntime.__version__}, opset {OPSET}\n")
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in args.network:
        for precision in PRECISIONS:
            for line in report(name, precision, args.rounds, args.side, args.folder):
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
