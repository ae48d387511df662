"""Trainings under a real Slurm, interrupted as clusters do it: `python -m tests.stress.slurm --requeues 10 --seed 0`.

Brings up a Slurm of two nodes on this machine, in a temporary folder, and trains with a process on each by the script
that docs/how-to/several_gpus.md prints: undisturbed; requeued at random moments, half of them while a checkpoint is
being written; with each of the nodes killed; up against its time limit; and told to stop by scancel. After every
interruption every checkpoint can be read; in the end the weights are, bit for bit, those of the undisturbed training.
Prints a table; exit code 1 if anything is otherwise, 2 where Slurm is not installed. Takes about ten minutes on two
cores.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.helpers import ROOT
from tests.stress.fuzz import make_template
from tests.stress.slurm import scenarios
from tests.stress.slurm.cluster import Cluster, job_environment, missing_programs
from tests.stress.slurm.scenarios import Outcome, Training, carry_out

# Long enough to be up against the shortest time limit, a minute, and for checkpoints between interruptions.
LEAST_ITERATIONS = 700
ITERATIONS_PER_REQUEUE = 60
SECONDS_PER_ITERATION = 0.5  # of patience
LOG_LINES = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requeues", type=int, default=10, help="how often the job is requeued by hand")
    parser.add_argument("--seed", type=int, default=0, help="of the moments to do so")
    parser.add_argument("--workers", type=int, default=1, help="of each process, reading images")
    args = parser.parse_args()
    if missing := missing_programs():
        sys.stderr.write(f"no {', '.join(missing)}: apt-get install slurm-wlm munge\n")
        sys.exit(2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # through the ends of the blocks, which stop the daemons
    with tempfile.TemporaryDirectory() as parent:
        folder, work = Path(parent) / "slurm", Path(parent) / "work"
        folder.mkdir()
        make_template(work)
        with Cluster(folder, job_environment(ROOT)) as cluster:
            outcomes = run_all(cluster, work, args)
    print_table(outcomes)
    sys.exit(not all(outcome.is_good for outcome in outcomes))


def run_all(cluster: Cluster, work: Path, args: argparse.Namespace) -> list[Outcome]:
    """Train once for each scenario, one after the other."""
    iterations = max(LEAST_ITERATIONS, ITERATIONS_PER_REQUEUE * args.requeues)
    seconds = 60 + SECONDS_PER_ITERATION * iterations
    changes = {
        "train": {"total_iter": iterations, "freeze_encoder_iters": iterations // 2},
        "train.optim_g": {"lr": 1e-4},
        "logger": {"save_checkpoint_freq": 3, "keep_last": 4},
        "datasets.train": {"num_worker_per_gpu": args.workers},
    }
    requeued = partial(scenarios.requeued, seconds=seconds, count=args.requeues, rng=random.Random(args.seed))
    outcomes = []
    for name, flags, scenario in (
        ("undisturbed", (), partial(scenarios.undisturbed, seconds=seconds)),
        ("requeued", (), requeued),
        ("node_killed", (), partial(scenarios.node_killed, seconds=seconds)),
        ("time_limit", ("--time=1", "--signal=TERM@15"), partial(scenarios.time_limit, seconds=2 * seconds)),
        ("signalled", (), scenarios.signalled),
    ):
        training = Training(cluster, work, name, changes, flags)
        outcome = carry_out(training, scenario)
        if name in ("requeued", "node_killed", "time_limit") and not outcome.fault:
            outcome.different = count_different(work, name)
        if not outcome.is_good:
            show_logs(training)
        outcomes.append(outcome)
    return outcomes


def count_different(work: Path, name: str) -> int:
    """Count the tensors, of params and params_ema, that are not the undisturbed training's bit for bit."""
    whole, other = (
        flat(torch.load(work / "experiments" / one / "models" / "net_g_latest.pth", weights_only=True))
        for one in ("undisturbed", name)
    )
    return len(whole.keys() ^ other.keys()) + sum(
        not torch.equal(whole[key], other[key]) for key in whole.keys() & other.keys()
    )


def flat(networks: dict[str, dict[str, Any]]) -> dict[tuple[str, str], Any]:
    """Name each tensor by the kind of weights and its own name."""
    return {(kind, key): value for kind, weights in networks.items() for key, value in weights.items()}


def show_logs(training: Training) -> None:
    """Print the ends of a job's log and of the controller's."""
    for text in (training.log_text(), (training.cluster.folder / "slurmctld.log").read_text(errors="replace")):
        sys.stdout.write("\n".join([f"-- {training.outcome.scenario} --", *text.splitlines()[-LOG_LINES:], ""]))


def print_table(outcomes: list[Outcome]) -> None:
    """Print a line for each scenario."""
    row = "| {:11} | {:>13} | {:>12} | {:24} | {:>10} | {:>9} | {}\n".format
    titles = ("scenario", "interruptions", "while saving", "exit codes: training; job", "unreadable", "different")
    sys.stdout.write(row(*titles, "fault"))
    for one in outcomes:
        numbers = (one.interruptions, one.while_saving, one.exit_codes, one.unreadable, one.different)
        sys.stdout.write(row(one.scenario, *numbers, one.fault or "none"))


if __name__ == "__main__":
    main()
