"""A training on many GPUs, on paper: what its parts cost here, and where they become the limit there.

`python benchmarks/scale.py scale.png` measures the parts that a machine without GPUs has (bytes of gradients and of a
checkpoint, writing, start-up, decoding, an all-reduce by 2 and 4 processes), takes the others from the command line,
and prints a table for 8 to 1,024 GPUs. A failure process is simulated with those times; the figure shows the useful
share of the time against the number of nodes.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.distributed as dist
from skimage.data import chelsea

from srflow_plugin import SRFlowNet
from srflow_plugin.files import save_atomically
from srflow_plugin.options.files import load_options

ROOT = Path(__file__).resolve().parents[1]
GPUS = (8, 64, 256, 1024)
GPUS_PER_NODE = 8
HOUR = 3600.0
GIGABYTE = 1e9


@dataclass
class Parts:
    """Costs of a training, in seconds and bytes; those of GPUs and networks are assumed."""

    step: float  # of one GPU, without the all-reduce
    network: float  # bytes a second of a node
    latency: float  # of one step of a ring between nodes
    server: float  # bytes a second of the file server, for all nodes
    failures: float  # mean time between failures of a node
    validation: float  # of one validation by one GPU
    batch: int  # of one GPU
    save_every: int  # iterations
    validate_every: int
    gradients: float = 0.0  # bytes
    checkpoint: float = 0.0
    write: float = 0.0  # bytes a second of the disk that checkpoints go to
    start: float = 0.0
    image: float = 0.0  # bytes of a tile that a patch is cut from
    decode: float = 0.0  # seconds of a core

    def all_reduce(self, nodes: int) -> float:
        """Sum the gradients in a ring over nodes; within a node it costs little beside that."""
        return 2 * (nodes - 1) / nodes * self.gradients / self.network + 2 * (nodes - 1) * self.latency

    def iteration(self, nodes: int) -> float:
        """Take a step: two thirds of it, the backward pass, hide the all-reduce; the data may be the limit."""
        compute = self.step + max(0.0, self.all_reduce(nodes) - 2 / 3 * self.step)
        return max(compute, self.reading(nodes))

    def reading(self, nodes: int) -> float:
        """Read an iteration's images from one file server."""
        return nodes * GPUS_PER_NODE * self.batch * self.image / self.server

    def save(self) -> float:
        """Write a checkpoint by rank 0, while all wait."""
        return self.checkpoint / self.write

    def mean_iteration(self, nodes: int) -> float:
        """Time of an iteration with its share of checkpoints and validations."""
        validation = self.validation / (nodes * GPUS_PER_NODE)
        return self.iteration(nodes) + self.save() / self.save_every + validation / self.validate_every

    def best_interval(self, nodes: int) -> float:
        """Iterations between checkpoints that lose the least (Young, 1974)."""
        return math.sqrt(2 * self.save() * self.failures / nodes) / self.iteration(nodes)


def useful_share(parts: Parts, nodes: int, days: float, seed: int) -> float:
    """Simulate failures: the share of the time that went into iterations that are kept."""
    rng, now, kept = random.Random(seed), 0.0, 0.0
    end, chunk = days * 24 * HOUR, parts.mean_iteration(nodes) * parts.save_every
    useful = parts.iteration(nodes) * parts.save_every
    failure = rng.expovariate(nodes / parts.failures)
    while now < end:
        if now + chunk <= failure:
            now, kept = now + chunk, kept + useful
        else:
            now = max(now, failure) + parts.start
            failure = now + rng.expovariate(nodes / parts.failures)
    return kept / now


# -- what can be measured here -----------------------------------------------------------------------------------------


def measure(parts: Parts) -> Parts:
    """Fill in what this machine can tell."""
    section = load_options(ROOT / "options" / "train_SRFlow_x4.yml")["network_g"]
    network = SRFlowNet(**{key: value for key, value in section.items() if key != "type"})
    size = sum(parameter.numel() for parameter in network.parameters()) * 4
    state = {"params": network.state_dict(), "moments": [torch.zeros(size // 4) for _ in range(2)]}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.pth"
        seconds = median(lambda: save_atomically(state, file))
        written = file.stat().st_size
    tile = np.ascontiguousarray(chelsea()[:300, :300])
    png = cv2.imencode(".png", tile, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    begin = median(
        lambda: subprocess.run([sys.executable, "-c", "import srflow_plugin.training.pipelines"], check=True)
    )
    return replace(
        parts,
        gradients=size,
        checkpoint=written,
        write=written / seconds,
        start=begin + 60,  # and a scheduler's minute
        image=len(png),
        decode=median(lambda: cv2.imdecode(png, cv2.IMREAD_COLOR)),
    )


def median(work: object, rounds: int = 5) -> float:
    """Time ``work`` several times."""
    assert callable(work)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def time_all_reduce(processes: int) -> float:
    """Time the all-reduce of 64 MB between processes of this machine by Gloo."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--standalone"]
    done = subprocess.run([*command, __file__, "--ring"], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[0])


def ring() -> None:
    """Print what :func:`time_all_reduce` asks for, as one of the processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    values = torch.ones(16_000_000)

    def work() -> None:
        dist.all_reduce(values)

    seconds = median(work)
    if dist.get_rank() == 0:
        sys.stdout.write(f"{seconds}\n")
    dist.destroy_process_group()


# -- the page ----------------------------------------------------------------------------------------------------------


def table(parts: Parts, days: float) -> list[str]:
    """Make the rows for 8 GPUs and more."""
    lines = [
        "| GPUs | all-reduce, s | images, s | iteration, s | save every | useful share, % |",
        "|--|--|--|--|--|--|",
    ]
    for gpus in GPUS:
        nodes = gpus // GPUS_PER_NODE
        share = statistics.mean(useful_share(parts, nodes, days, seed) for seed in range(20))
        lines.append(
            f"| {gpus} | {parts.all_reduce(nodes):.3f} | {parts.reading(nodes):.3f} | {parts.iteration(nodes):.3f} "
            f"| {parts.best_interval(nodes):,.0f} | {100 * share:.1f} |"
        )
    return lines


def draw(parts: Parts, days: float, figure: Path) -> None:
    """Draw the useful share against the number of nodes, for several intervals between checkpoints."""
    _, axes = plt.subplots(figsize=(7, 3.8))
    nodes = [2**power for power in range(8)]
    for every in (500, 5000, 20000):
        one = replace(parts, save_every=every)
        shares = [statistics.mean(useful_share(one, count, days, seed) for seed in range(20)) for count in nodes]
        axes.semilogx(nodes, [100 * share for share in shares], marker="o", base=2, label=f"every {every:,} iterations")
    axes.set_xlabel("nodes of 8 GPUs")
    axes.set_ylabel("useful share of the time, %")
    axes.set_ylim(0, 101)
    axes.legend(title="checkpoint", loc="lower left")
    axes.grid(alpha=0.3)
    plt.tight_layout()
    plt.savefig(figure, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", type=Path, help="picture to write")
    parser.add_argument("--step", type=float, default=0.5, help="seconds of a step on one GPU")
    parser.add_argument("--network", type=float, default=12.5, help="GB a second of a node's network")
    parser.add_argument("--server", type=float, default=2.0, help="GB a second of the file server")
    parser.add_argument("--failures", type=float, default=24 * 90, help="hours between failures of a node")
    parser.add_argument("--days", type=float, default=14, help="length of the simulated training")
    args = parser.parse_args()
    assumed = Parts(
        step=args.step,
        network=args.network * GIGABYTE,
        latency=2e-5,
        server=args.server * GIGABYTE,
        failures=args.failures * HOUR,
        validation=120,
        batch=16,
        save_every=5000,
        validate_every=5000,
    )
    parts = measure(assumed)
    two, four = time_all_reduce(2), time_all_reduce(4)
    lines = [
        f"gradients {parts.gradients / 1e6:.0f} MB, checkpoint {parts.checkpoint / 1e6:.0f} MB in "
        f"{parts.save():.1f} s, start-up {parts.start:.0f} s, "
        f"a tile {parts.image / 1e3:.0f} kB, decoded in {1000 * parts.decode:.2f} ms",
        f"all-reduce of 64 MB: {two:.3f} s by 2 processes, {four:.3f} by 4; of a ring the ratio is 1.50 where each has "
        f"a core of its own: {four / two:.2f}",
        *table(parts, args.days),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    draw(parts, args.days, args.figure)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    ring() if "--ring" in sys.argv else main()
