"""Time and memory of sampling and training, against BasicSR's RRDBNet and against this project's own plain layers.

    python -m benchmarks.speed FOLDER [--rounds 3] [--size 160] [--only sampling training memory growth] [--device cpu]

Writes FOLDER/speed.json, with all parts FOLDER/speed.png, too, and prints tables. All networks have the released x4
network's sizes, random weights, and an LR image of 160x160 for sampling, patches of 160x160 HR for training. Round 0,
which is not counted, makes the compiled programs: standard error has its seconds. Units: one forward pass of
RRDBNet(num_feat=64, num_block=23) on the same LR image, one L1 training step of it on the same batch. The contestants
of a table take turns, round by round; figures are medians over rounds of the ratio to the unit of the same round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch

from benchmarks._measure import (
    COMPILED,
    TRAININGS,
    UNIT,
    Times,
    machine,
    make_network,
    of_own_process,
    peak,
    plain_sample,
    ratios,
    rrdbnet,
    seconds,
    take_turns,
    training_step,
)
from srflow_plugin import SRFlowNet

mpl.use("Agg")
import matplotlib.pyplot as plt

PATCH, BATCH = 40, 4  # LR pixels of a training patch, patches
TRAINED = [UNIT, "plain layers, encoder frozen", "plain layers, all", *TRAININGS]
PRECISIONS = ("float32", "bfloat16")
PARTS = ("sampling", "training", "memory", "growth")


def sampling(rounds: int, size: int, device: str) -> Times:
    lq = torch.rand(1, 3, size, size, device=device)
    rrdb = rrdbnet().to(device).eval()
    networks = {
        precision + compiled: make_network(precision=precision, compile=bool(compiled)).to(device).eval()
        for precision in PRECISIONS
        for compiled in ("", ", compiled")
    }
    contestants: dict[str, Callable[[], object]] = {
        UNIT: lambda: rrdb(lq),
        "plain layers, 1 sample": lambda: plain_sample(networks["float32"], lq),
    }
    for name, network in networks.items():
        contestants[f"{name}, encoder"] = lambda n=network: n.features(lq)  # type: ignore[misc]
        for count in (1, 10):
            contestants[f"{name}, {count} samples"] = lambda n=network, c=count: n.sample(lq, 0.8, c)  # type: ignore[misc]
    with torch.no_grad():
        return take_turns(contestants, rounds, device)


def growth(device: str) -> dict[str, dict[str, float]]:
    """Seconds of one sample by LR size and by K, and of several samples; one run each after a warm-up."""
    network = make_network().to(device).eval()

    def sample(net: SRFlowNet, size: int, count: int = 1) -> float:
        lq = torch.rand(1, 3, size, size, device=device)
        return min(seconds(lambda: net.sample(lq, 0.8, count), device) for _ in range(2))

    return {
        "LR side": {str(size): sample(network, size) for size in (40, 80, 160, 320)},
        "K": {str(steps): sample(make_network(num_steps=steps).to(device).eval(), 80) for steps in (4, 8, 16)},
        "samples": {str(count): sample(network, 80, count) for count in (1, 2, 5, 10)},
    }


def training(rounds: int, device: str) -> Times:
    names = [*TRAINED, *COMPILED]
    return take_turns({name: training_step(name, BATCH, PATCH, device) for name in names}, rounds, device)


def memory(device: str) -> dict[str, float]:
    """GB by which one more patch raises the peak of a training, each measured in processes of their own."""
    peaks: dict[str, list[float]] = {}
    for name in TRAINED:
        for batch in (BATCH, 2 * BATCH):
            options = ["-", "--device", device, "--peak-of", name, "--batch", str(batch)]
            peaks.setdefault(name, []).append(of_own_process("benchmarks.speed", *options))
            sys.stderr.write(f"peak memory, {name}, batch {batch}: {peaks[name][-1]} GB\n")
    return {name: (large - small) / BATCH for name, (small, large) in peaks.items()}


def peak_of(name: str, batch: int, device: str) -> float:
    """GB at most in two training steps: of the process, or of the GPU."""
    step = training_step(name, batch, PATCH, device)
    step()
    step()
    return peak(device)


def table(title: str, times: Times) -> str:
    lines = [f"| {title} | units (smallest - largest) | seconds |", "|---|---|---|"]
    for name, (median, low, high) in ratios(times).items():
        lines.append(f"| {name} | {median:.2f} ({low:.2f} - {high:.2f}) | {statistics.median(times[name]):.2f} |")
    return "\n".join(lines)


def plot(results: dict[str, Any], path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    units = {name: ratio[0] for name, ratio in ratios(results["sampling"]).items()}
    for name in PRECISIONS:
        first, tenth = units[f"{name}, 1 samples"], units[f"{name}, 10 samples"]
        left.plot([1, 10], [first, tenth], marker="o", label=name)
    left.plot([1, 10], [units["plain layers, 1 sample"] * count for count in (1, 10)], label="plain layers", ls="--")
    left.set(xlabel="samples of one image", ylabel="RRDBNet forward passes", yscale="log", title="Sampling")
    left.legend()
    names = list(results["memory"])
    right.barh(names, [1000 * results["memory"][name] for name in names])
    right.set(xlabel="MB per further 160x160 patch", title="Training memory")
    right.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=160, help="side of the LR image")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak_of:
        sys.stdout.write(f"{peak_of(args.peak_of, args.batch, args.device)}\n")
        return
    measure: dict[str, Callable[[], Any]] = {
        "sampling": lambda: sampling(args.rounds, args.size, args.device),
        "training": lambda: training(args.rounds, args.device),
        "memory": lambda: memory(args.device),
        "growth": lambda: growth(args.device),
    }
    results = {"machine": machine(args.device), **{part: measure[part]() for part in PARTS if part in args.only}}
    args.folder.mkdir(parents=True, exist_ok=True)
    (args.folder / "speed.json").write_text(json.dumps(results, indent=1))
    if len(args.only) == len(PARTS):
        plot(results, args.folder / "speed.png")
    sys.stdout.write("\n\n".join(tables(results)) + "\n")


def tables(results: dict[str, Any]) -> Iterator[str]:
    """Write the parts that were measured as Markdown."""
    yield str(results["machine"])
    if "sampling" in results:
        units = ratios(results["sampling"])
        lines = [table("sampling", results["sampling"])]
        for name in [name.removesuffix(", 1 samples") for name in units if name.endswith(", 1 samples")]:
            further = (units[f"{name}, 10 samples"][0] - units[f"{name}, 1 samples"][0]) / 9
            lines.append(f"| {name}, each further sample | {further:.3f} | |")
        yield "\n".join(lines)
    if "training" in results:
        yield table(f"training, batch {BATCH}", results["training"])
    if "memory" in results:
        lines = [f"| {name} | {gigabytes:.3f} |" for name, gigabytes in results["memory"].items()]
        yield "\n".join(["| memory per further patch | GB |", "|---|---|", *lines])
    if "growth" in results:
        yield json.dumps(results["growth"])


if __name__ == "__main__":
    main()
