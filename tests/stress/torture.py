"""A training of two processes that is killed again and again: `python -m tests.stress.torture --kills 60 --seed 0`.

SIGKILL at random moments, to all processes or to one of them, half of the time while a checkpoint is being written;
started again with --auto_resume each time. After every kill every checkpoint can be read; in the end the weights are,
bit for bit, those of a run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from tqdm import tqdm

from tests.stress.fuzz import make_template

ITERATIONS_PER_KILL = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "work"
        make_template(folder)
        iterations = ITERATIONS_PER_KILL * args.kills
        with start(folder, "whole", iterations) as whole:
            assert whole.wait() == 0, log_of(folder, "whole")
        during = iterations_done = 0
        for number in tqdm(range(args.kills), unit="kill"):
            with start(folder, "part", iterations) as process:
                during += wait_for_moment(process, folder / "experiments" / "part", rng)
                if process.poll() is not None:
                    sys.exit(f"run {number} ended by itself, code {process.returncode}:\n{log_of(folder, 'part')}")
                victims = descendants(process.pid)
                for victim in [rng.choice(victims)] if victims and rng.random() < 0.3 else [process.pid, *victims]:
                    kill(victim)
                process.wait()
            iterations_done = check_files(folder / "experiments" / "part")
        with start(folder, "part", iterations) as process:
            assert process.wait() == 0, log_of(folder, "part")
        check_files(folder / "experiments" / "part")
        whole_state, part_state = (
            torch.load(folder / "experiments" / name / "models" / "net_g_latest.pth", weights_only=True)
            for name in ("whole", "part")
        )
        different = [
            f"{kind} {key}"
            for kind in whole_state
            for key in whole_state[kind]
            if not torch.equal(whole_state[kind][key], part_state[kind][key])
        ]
        sys.stdout.write(
            f"{args.kills} kills, {during} of them while a checkpoint was being written, the last at iteration "
            f"{iterations_done} of {iterations}; every file readable. Tensors that differ: {len(different)}\n"
        )
        sys.exit(bool(different))


def start(folder: Path, name: str, iterations: int) -> subprocess.Popen[bytes]:
    options = [f"name={name}", f"train:total_iter={iterations}", f"train:freeze_encoder_iters={iterations // 2}"]
    options += ["val=none", "logger:save_checkpoint_freq=3", "logger:keep_last=4", "train:optim_g:lr=0.0001"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    command = [*torchrun, "-m", "srflow_plugin", "train", "-opt", "tiny.yml", "--auto_resume", "--force_yml", *options]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)


def wait_for_moment(process: subprocess.Popen[bytes], experiment: Path, rng: random.Random) -> bool:
    """Wait for the moment to kill; whether a checkpoint is being written then."""
    if rng.random() < 0.1:  # while it starts
        time.sleep(rng.uniform(0, 8))
        return False
    before = states(experiment)
    while states(experiment) == before and process.poll() is None:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 1))
    if rng.random() < 0.5:
        return False
    folders = [experiment / "models", experiment / "training_states"]
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and process.poll() is None:
        if any(True for folder in folders for _ in folder.glob("*.unfinished")):
            return True
    return False


def states(experiment: Path) -> set[str]:
    return {path.name for path in experiment.glob("training_states/*.state")}


def descendants(pid: int) -> list[int]:
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [*children, *(grandchild for child in children for grandchild in descendants(child))]


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def check_files(experiment: Path) -> int:
    """Read every checkpoint; the iteration of the newest."""
    newest = 0
    for state in experiment.glob("training_states/*.state"):
        newest = max(newest, torch.load(state, weights_only=True)["iter"])
        network = experiment / "models" / f"net_g_{state.stem}.pth"
        assert network.exists(), f"{state} has no network"
    for network in experiment.glob("models/*.pth"):
        torch.load(network, weights_only=True)
    return newest


def log_of(folder: Path, name: str) -> str:
    return (folder / f"{name}.log").read_text(errors="replace")[-3000:]


if __name__ == "__main__":
    main()
