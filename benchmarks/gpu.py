"""Everything that waits for a GPU, in one command of ten minutes at most; docs/gpu-todo.md has the goals.

    python -m benchmarks.gpu FOLDER [--only PART ...] [--minutes 9.5] [--device cuda] [--quick]

Writes FOLDER/gpu.json and FOLDER/gpu.md after each part. A part is a process of its own: one that fails says why and
ends none of the others, one that takes longer than its time is stopped, one that has no time left is left out. Needs
torch and this project; without BasicSR, RRDBNet is a copy of it. ``--device cpu --quick`` tries the script itself.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
NEEDED = {"torch": "torch", "numpy": "numpy", "PIL": "pillow", "safetensors": "safetensors"}  # as pip calls them


class Part(NamedTuple):
    """One table, which takes so many seconds at most."""

    title: str
    columns: list[str]
    seconds: int


TIMES = ["", "ms", "RRDBNet = 1"]
PARTS = {
    "machine": Part("Machine", ["", ""], 60),
    "exactness": Part("Exactness, largest errors", ["", "error"], 60),
    "seeds": Part(
        "One seed, one picture: against this device's in float32",
        ["", "grey levels at most", "share of 8-bit values that differ"],
        60,
    ),
    "waits": Part("No waiting for the GPU", ["", ""], 40),
    "sampling": Part("Sampling (goal: ten samples within 60 ms)", TIMES, 60),
    "training": Part(
        "Training, 16 patches (goal: 70 % of RRDBNet's throughput)",
        ["", "ms a step", "patches a second", "% of RRDBNet"],
        90,
    ),
    "memory": Part("Training, 64 patches (goal: 40 GB)", ["", "GB at most"], 60),
    "graphs": Part("CUDA graphs (use_graphs) off and on", TIMES[:2], 60),
    "compile": Part("torch.compile off and on", TIMES[:2], 120),
    "profile": Part("One call, bfloat16", ["", "calls", "ms"], 40),
    "windows": Part("Window sizes (fast.window_bytes), bfloat16", ["bytes", "ms", "GB at most"], 60),
    "large": Part("A large image in tiles", ["", "tile", "seconds", "GB at most"], 60),
}


def cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def markdown(results: dict[str, Any]) -> str:
    """Make the page of all parts so far."""
    texts = []
    for name, result in results.items():
        part = PARTS[name]
        lines = [f"## {part.title}", ""]
        if "rows" in result:
            lines += [f"| {' | '.join(part.columns)} |", "|---" * len(part.columns) + "|"]
            lines += [f"| {' | '.join(map(cell, row))} |" for row in result["rows"]]
        else:
            lines.append(f"Not measured: {result['fault']}")
        texts.append("\n".join(lines) + "\n")
    return "\n".join(texts)


def run_part(name: str, options: list[str], seconds: float) -> dict[str, Any]:
    """Run a part in a process of its own: its rows, or why there are none."""
    limit = PARTS[name].seconds
    if limit > seconds:
        return {"fault": f"it may take {limit} s, and {max(0, seconds):.0f} s are left (--only {name})"}
    command = [sys.executable, "-m", "benchmarks.gpu", "-", "--part", name, *options]
    start = time.perf_counter()
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"fault": f"it takes longer than {limit} s"}
    if done.returncode:
        sys.stderr.write(done.stderr)
        lines = done.stderr.strip().splitlines()
        return {"fault": lines[-1] if lines else f"it ended with {done.returncode}"}
    return {"rows": json.loads(done.stdout.splitlines()[-1]), "seconds": time.perf_counter() - start}


def run_all(names: list[str], options: list[str], minutes: float, folder: Path) -> bool:
    """Run parts one after the other, and write what there is after each; say whether all were measured."""
    end, results = time.perf_counter() + 60 * minutes, dict[str, Any]()
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        results[name] = run_part(name, options, end - time.perf_counter())
        (folder / "gpu.json").write_text(json.dumps(results, indent=1))
        (folder / "gpu.md").write_text(markdown(results))
        sys.stdout.write(f"{markdown({name: results[name]})}\n")
        sys.stdout.flush()
    return all("rows" in result for result in results.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--minutes", type=float, default=9.5, help="after which no part begins")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does the script work")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    missing = [package for name, package in NEEDED.items() if find_spec(name) is None]
    if missing:
        parser.error(f"missing here: pip install {' '.join(missing)}")
    if args.part:
        from benchmarks import _gpu

        rows = _gpu.PARTS[args.part](_gpu.Case(args.device, **_gpu.QUICK if args.quick else {}))
        sys.stdout.write(f"\n{json.dumps(rows)}\n")
        return
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no CUDA device here; --device cpu --quick tries the script")
    options = ["--device", args.device, *["--quick"] * args.quick]
    sys.exit(0 if run_all(args.only, options, args.minutes, args.folder) else 1)


if __name__ == "__main__":
    main()
