"""Time and memory of sampling and training, against BasicSR's RRDBNet and against this project's own plain layers.

    python benchmarks/speed.py FOLDER [--rounds 3] [--device cpu]

Writes FOLDER/speed.json and FOLDER/speed.png and prints tables. All networks have the released x4 network's sizes,
random weights, and an LR image of 160x160 for sampling, patches of 160x160 HR for training. Units: one forward pass of
RRDBNet(num_feat=64, num_block=23) on the same LR image, one L1 training step of it on the same batch. The contestants
of a table take turns, round by round; figures are medians over rounds of the ratio to the unit of the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
import torch.nn.functional as F
from torch import Tensor

from srflow_plugin import SRFlowNet  # before BasicSR, which it makes importable

# isort: split
from basicsr.archs.rrdbnet_arch import RRDBNet

mpl.use("Agg")
import matplotlib.pyplot as plt

SIZE, PATCH, BATCH = 160, 40, 4  # LR pixels of the image and of a training patch, patches
TRAININGS: dict[str, tuple[bool, dict[str, Any]]] = {  # does the encoder train, settings
    "float32, encoder frozen": (False, {}),
    "float32, all": (True, {}),
    "float32, all, recompute_encoder": (True, {"recompute_encoder": True}),
    "bfloat16, encoder frozen": (False, {"precision": "bfloat16"}),
    "bfloat16, all": (True, {"precision": "bfloat16"}),
    "bfloat16, all, recompute_encoder": (True, {"precision": "bfloat16", "recompute_encoder": True}),
}


def make_network(**settings: Any) -> SRFlowNet:
    """Make a network whose flow is not at its start, where couplings do nothing."""
    torch.manual_seed(0)
    network = SRFlowNet(**settings)
    with torch.no_grad():
        for parameter in network.flow.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return network


def plain_sample(network: SRFlowNet, lq: Tensor) -> Tensor:
    """Draw one sample by the layers' own inverse."""
    contexts = network.encoder(lq)
    latents = [0.8 * torch.randn(len(lq), *shape, device=lq.device) for shape in network.latent_shapes(*lq.shape[2:])]
    image: Tensor = network.flow.inverse(latents, contexts)[0]
    return image


def plain_nll(network: SRFlowNet, gt: Tensor, lq: Tensor) -> Tensor:
    """Compute a training loss by the layers' own forward; the constant is left out."""
    latents, logdet = network.flow(gt, network.encoder(lq))
    loss: Tensor = torch.stack([latent.square().sum() / 2 for latent in latents]).sum() - logdet.sum()
    return loss


def seconds(function: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def take_turns(contestants: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of each contestant in each round, after a warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(1 + rounds):
        for name, function in contestants.items():
            took = seconds(function, device)
            if number:
                times[name].append(took)
            sys.stderr.write(f"round {number}, {name}: {took:.3f} s\n")
    return times


def sampling(rounds: int, device: str) -> dict[str, list[float]]:
    lq = torch.rand(1, 3, SIZE, SIZE, device=device)
    rrdb = RRDBNet(3, 3, num_feat=64, num_block=23).to(device).eval()
    float32, bfloat16 = (make_network(precision=precision).to(device).eval() for precision in ("float32", "bfloat16"))
    contestants: dict[str, Callable[[], object]] = {
        "RRDBNet": lambda: rrdb(lq),
        "plain layers, 1 sample": lambda: plain_sample(float32, lq),
    }
    for name, network in (("float32", float32), ("bfloat16", bfloat16)):
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


def training_step(name: str, batch: int, device: str) -> Callable[[], object]:
    gt, lq = (
        torch.rand(batch, 3, 4 * PATCH, 4 * PATCH, device=device),
        torch.rand(batch, 3, PATCH, PATCH, device=device),
    )
    if name == "RRDBNet":
        rrdb = RRDBNet(3, 3, num_feat=64, num_block=23).to(device)
        network, loss = rrdb, lambda: F.l1_loss(rrdb(lq), gt)
    elif name.startswith("plain layers"):
        flow_net = make_network().to(device)
        flow_net.encoder.requires_grad_(name.endswith("all"))
        network, loss = flow_net, lambda: plain_nll(flow_net, gt, lq)
    else:
        trains, settings = TRAININGS[name]
        ours = make_network(**settings).to(device)
        ours.encoder.requires_grad_(trains)
        network, loss = ours, lambda: ours(gt, lq).mean()
    optimizer = torch.optim.Adam([parameter for parameter in network.parameters() if parameter.requires_grad], 1e-6)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def training(rounds: int, device: str) -> dict[str, list[float]]:
    names = ["RRDBNet", "plain layers, encoder frozen", "plain layers, all", *TRAININGS]
    return take_turns({name: training_step(name, BATCH, device) for name in names}, rounds, device)


def memory(device: str) -> dict[str, float]:
    """GB by which one more patch raises the peak of a training, each measured in processes of their own."""
    names = ["RRDBNet", "plain layers, encoder frozen", "plain layers, all", *TRAININGS]
    peaks: dict[str, list[float]] = {}
    for name in names:
        for batch in (BATCH, 2 * BATCH):
            command = [sys.executable, __file__, "-", "--device", device, "--peak-of", name, "--batch", str(batch)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks.setdefault(name, []).append(float(done.stdout))
            sys.stderr.write(f"peak memory, {name}, batch {batch}: {done.stdout.strip()} GB\n")
    return {name: (large - small) / BATCH for name, (small, large) in peaks.items()}


def peak(name: str, batch: int, device: str) -> float:
    """GB at most in two training steps: of the process, or of the GPU."""
    step = training_step(name, batch, device)
    step()
    step()
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    # Not resource.getrusage: there a process starts with its parent's peak.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e6


def ratios(times: dict[str, list[float]]) -> dict[str, tuple[float, float, float]]:
    """Median, smallest and largest ratio to RRDBNet of the same round."""
    result = {}
    for name, values in times.items():
        relative = [value / unit for value, unit in zip(values, times["RRDBNet"], strict=True)]
        result[name] = (statistics.median(relative), min(relative), max(relative))
    return result


def table(title: str, times: dict[str, list[float]]) -> str:
    lines = [f"| {title} | units (smallest - largest) | seconds |", "|---|---|---|"]
    for name, (median, low, high) in ratios(times).items():
        lines.append(f"| {name} | {median:.2f} ({low:.2f} - {high:.2f}) | {statistics.median(times[name]):.2f} |")
    return "\n".join(lines) + "\n"


def plot(results: dict[str, Any], path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    units = {name: ratio[0] for name, ratio in ratios(results["sampling"]).items()}
    for name in ("float32", "bfloat16"):
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
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak_of:
        sys.stdout.write(f"{peak(args.peak_of, args.batch, args.device)}\n")
        return
    results: dict[str, Any] = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if args.device == "cuda" else None,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "sampling": sampling(args.rounds, args.device),
        "training": training(args.rounds, args.device),
        "memory": memory(args.device),
        "growth": growth(args.device),
    }
    args.folder.mkdir(parents=True, exist_ok=True)
    (args.folder / "speed.json").write_text(json.dumps(results, indent=1))
    plot(results, args.folder / "speed.png")
    write = sys.stdout.write
    write(f"{results['machine']}\n\n{table('sampling', results['sampling'])}")
    units = ratios(results["sampling"])
    for name in ("float32", "bfloat16"):
        further = (units[f"{name}, 10 samples"][0] - units[f"{name}, 1 samples"][0]) / 9
        write(f"| {name}, each further sample | {further:.3f} | |\n")
    write(f"\n{table(f'training, batch {BATCH}', results['training'])}\n| memory per further patch | GB |\n|---|---|\n")
    for name, gigabytes in results["memory"].items():
        write(f"| {name} | {gigabytes:.3f} |\n")
    write(f"\n{json.dumps(results['growth'])}\n")


if __name__ == "__main__":
    main()
