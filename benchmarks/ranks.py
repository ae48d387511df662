"""One training by 1, 2 and 4 processes: how far apart their losses and weights are.

`python benchmarks/ranks.py ranks.png --iterations 50` runs tests/stress/ranks_agree.py (float64, the same eight images
for every number of processes, the encoder frozen for the first half, EMA, clipping) with Gloo on the CPU, prints the
largest differences from one process and draws them over the iterations. ranks_agree.py itself fails where two processes
of one run have different weights after any iteration.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.stress.fuzz import make_template  # noqa: E402

RUNS = {"2 processes": (2, 1), "4 processes": (4, 1), "1 process, batch in 4 parts": (1, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", type=Path, help="picture to write")
    parser.add_argument("--iterations", type=int, default=50)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "work"
        make_template(folder)
        one = train(folder, 1, 1, args.iterations)
        _, axes = plt.subplots(figsize=(7, 3.5))
        sys.stdout.write(
            "| run | largest difference of the loss, bits/dim | of a weight, at the end |\n|---|---|---|\n"
        )
        for name, (processes, parts) in RUNS.items():
            other = train(folder, processes, parts, args.iterations)
            losses = [abs(a["l_nll"] - b["l_nll"]) for a, b in zip(one["log"], other["log"], strict=True)]
            weights = max((one["weights"][key] - other["weights"][key]).abs().max() for key in floats(one["weights"]))
            sys.stdout.write(f"| {name} | {max(losses):.1e} | {weights:.1e} |\n")
            axes.semilogy(range(1, args.iterations + 1), [max(loss, 1e-17) for loss in losses], label=name)
        axes.axvline(args.iterations // 2, color="grey", linestyle=":", label="the encoder is unfrozen")
        axes.set(xlabel="iteration", ylabel="difference of the NLL (bits/dim)", title="Against one process, float64")
        axes.legend()
        plt.tight_layout()
        plt.savefig(args.figure, dpi=110)


def train(folder: Path, processes: int, parts: int, iterations: int) -> dict[str, Any]:
    torchrun = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--standalone"]
    script = ["-m", "tests.stress.ranks_agree", str(iterations), "out.pt", str(parts)]
    command = [sys.executable, *(torchrun if processes > 1 else []), *script]
    subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    result: dict[str, Any] = torch.load(folder / "out.pt", weights_only=True)
    return result


def floats(weights: dict[str, torch.Tensor]) -> list[str]:
    return [key for key, value in weights.items() if value.is_floating_point()]


if __name__ == "__main__":
    main()
