"""Time a step of training and a sample with threads that wait in several ways, alone and beside a busy process.

    python benchmarks/waiting.py [--rounds N]

Each in a process of its own, since OpenMP looks at its settings once. Prints medians in seconds, one for each round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import ExitStack

WAYS = {
    "default": {},
    "PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    **{f"spin {count}": {"GOMP_SPINCOUNT": str(count)} for count in (300, 3000)},
    "1 thread": {"OMP_NUM_THREADS": "1"},
}
CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
STEPS, SAMPLES, FIRST = 10, 4, 1  # the first ones are not counted
BUSY = "while True: pass"


def work() -> None:
    """Time steps and samples here."""
    import torch

    from srflow_plugin import SRFlowNet

    torch.manual_seed(0)
    sizes = {"num_feat": 32, "num_grow_ch": 16, "num_block": 4, "feature_blocks": range(4), "num_steps": 4}
    network = SRFlowNet(**sizes, hidden_channels=32)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    gt, lq, photograph = torch.rand(8, 3, 64, 64), torch.rand(8, 3, 16, 16), torch.rand(1, 3, 96, 96)
    network.initialize(gt, lq)

    def step() -> None:
        optimizer.zero_grad()
        network(gt, lq).mean().backward()
        optimizer.step()

    for count, action in ((STEPS, step), (SAMPLES, lambda: network.sample(photograph, 0.8, seed=0))):
        seconds = []
        for _ in range(count):
            start = time.perf_counter()
            action()
            seconds.append(time.perf_counter() - start)
        sys.stdout.write(f"{statistics.median(seconds[FIRST:]):.3f}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--here", action="store_true", help="time them in this process")
    args = parser.parse_args()
    if args.here:
        work()
        return
    clean = {name: value for name, value in os.environ.items() if name not in CHOICES}
    for neighbours in (0, 1):
        found = defaultdict(list)
        with ExitStack() as processes:
            for _ in range(neighbours):
                busy = subprocess.Popen([sys.executable, "-c", BUSY])
                processes.callback(busy.kill)
            for _ in range(args.rounds):
                for way, chosen in WAYS.items():
                    command = [sys.executable, __file__, "--here"]
                    found[way].append(subprocess.check_output(command, env={**clean, **chosen}, text=True).split())
        for way, times in found.items():
            steps, samples = (", ".join(column) for column in zip(*times, strict=True))
            place = "busy" if neighbours else "alone"
            sys.stdout.write(f"{place}, {way}: step {steps}; sample {samples}\n")


if __name__ == "__main__":
    main()
