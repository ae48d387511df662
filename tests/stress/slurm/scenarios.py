"""Trainings under Slurm that are interrupted, and what became of them."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from tests.helpers import ROOT
from tests.stress.slurm.cluster import NODES, Cluster, SlurmError, wait_until
from tests.stress.torture import states

PATIENCE = 90  # seconds for a start and a checkpoint
ENDED = re.compile(r"The training ended with exit code (\d+)\.")
STOPPED = re.compile(r"Stopped by SIGTERM after iteration (\d+), which is saved")


@dataclass
class Outcome:
    """What became of a training.

    Attributes:
        scenario: how it was interrupted.
        interruptions: how often.
        while_saving: how often while a checkpoint was being written.
        exit_codes: of the training, where the script lived to see them, and then of the job.
        unreadable: states and networks that could not be read after an interruption.
        different: tensors that differ from those of the training that nobody disturbed.
        fault: what else went wrong.
    """

    scenario: str
    interruptions: int = 0
    while_saving: int = 0
    exit_codes: str = ""
    unreadable: int = 0
    different: int = 0
    fault: str = ""

    @property
    def is_good(self) -> bool:
        """Say whether all is as it should be."""
        return not (self.unreadable or self.different or self.fault)


class Training:
    """Job that trains, by the script that docs/how-to/several_gpus.md prints.

    Args:
        cluster: where it runs.
        folder: working folder, with tiny.yml and its data.
        name: of the training.
        changes: options other than those of tiny.yml.
        flags: of sbatch, beside the number of nodes and processes.
    """

    def __init__(
        self, cluster: Cluster, folder: Path, name: str, changes: dict[str, dict[str, Any]], flags: tuple[str, ...] = ()
    ) -> None:
        self.cluster = cluster
        self.folder = folder
        self.experiment = folder / "experiments" / name
        self.log = folder / f"{name}.log"
        self.outcome = Outcome(name)
        script, options = folder / "train.sbatch", folder / f"{name}.yml"
        script.write_text(printed_script())
        write_options(folder / "tiny.yml", options, name, changes)
        size = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", "--gpus-per-node=0")
        command = ["sbatch", "--parsable", f"--chdir={folder}", f"--output={self.log}", *size, *flags]
        self.number = cluster.run(*command, str(script), options.name)

    @property
    def latest(self) -> Path:
        """Name the file that is written at the end of a training."""
        return self.experiment / "models" / "net_g_latest.pth"

    def is_running(self) -> bool:
        """Say whether it trains, or starts."""
        return self.cluster.job(self.number)["JobState"] == "RUNNING"

    def wait_for_checkpoint(self) -> None:
        """Wait until it has written a checkpoint, one that was not there before."""
        before = states(self.experiment)
        wait_until(lambda: bool(states(self.experiment) - before), "a new checkpoint", PATIENCE)

    def wait_for_end(self, seconds: float) -> None:
        """Wait until the job is over; it ends well."""
        wait_until(lambda: self.cluster.has_ended(self.number), f"job {self.number} at its end", seconds)
        if not self.latest.exists():
            raise SlurmError(f"the training ended early, exit codes {self.exit_codes()}")

    def exit_codes(self) -> str:
        """List the training's exit codes that the script saw, and the job's."""
        codes = " ".join(ENDED.findall(self.log_text()))
        return f"{codes}; {self.cluster.job(self.number)['ExitCode']}"

    def log_text(self) -> str:
        """Read what the job has printed, in all its starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def read_all(self) -> None:
        """Read every checkpoint; count those that cannot be read."""
        for path in [*self.experiment.glob("training_states/*.state"), *self.experiment.glob("models/*.pth")]:
            try:
                torch.load(path, weights_only=True)
            except Exception:
                self.outcome.unreadable += 1

    def note_interruption(self, while_saving: bool = False) -> None:
        """Count an interruption that is over, and read the checkpoints."""
        self.outcome.interruptions += 1
        self.outcome.while_saving += while_saving
        self.read_all()


def printed_script() -> str:
    """Read the script out of docs/how-to/several_gpus.md."""
    page = (ROOT / "docs" / "how-to" / "several_gpus.md").read_text()
    found = re.search(r"```sh\n(#!/bin/bash\n.*?)```", page, re.DOTALL)
    assert found, "docs/how-to/several_gpus.md has no script"
    return found[1]


def write_options(template: Path, path: Path, name: str, changes: dict[str, dict[str, Any]]) -> None:
    """Write an option file: another with a name of its own, without validation, and with changes to its sections."""
    opt = yaml.safe_load(template.read_text())
    opt["name"] = name
    del opt["val"]
    for section, values in changes.items():
        place = opt
        for key in section.split("."):
            place = place[key]
        place.update(values)
    path.write_text(yaml.safe_dump(opt))


def wait_for_moment(training: Training, rng: random.Random) -> bool:
    """Wait for a moment to interrupt a job that is to start; say whether a checkpoint is being written then."""
    if rng.random() < 0.1:  # while it starts
        wait_until(training.is_running, f"job {training.number} running")
        time.sleep(rng.uniform(0, 6))
        return False
    training.wait_for_checkpoint()
    time.sleep(rng.uniform(0, 1))
    return rng.random() < 0.6 and comes_to_save(training.experiment)


def comes_to_save(experiment: Path) -> bool:
    """Wait until a training is writing a checkpoint; say whether it came to that in a few seconds."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if any(list((experiment / folder).glob("*.unfinished")) for folder in ("models", "training_states")):
            return True
        time.sleep(0.001)
    return False


# -- the scenarios -----------------------------------------------------------------------------------------------------


def undisturbed(training: Training, seconds: float) -> None:
    """Train to the end."""
    training.wait_for_end(seconds)


def requeued(training: Training, seconds: float, count: int, rng: random.Random) -> None:
    """Requeue the job by hand, so often, and let it end."""
    for _ in range(count):
        while_saving = wait_for_moment(training, rng)
        training.cluster.run("scontrol", "requeue", training.number)
        training.cluster.start_soon(training.number)
        training.note_interruption(while_saving)
    training.wait_for_end(seconds)


def node_killed(training: Training, seconds: float) -> None:
    """Kill one node and then the other, the one with the script; requeue the job where Slurm has not; let it end."""
    cluster = training.cluster

    def is_off_the_nodes() -> bool:
        return cluster.is_pending(training.number) or cluster.has_ended(training.number)

    for node in reversed(NODES):
        training.wait_for_checkpoint()
        while_saving = comes_to_save(training.experiment)
        cluster.kill_node(node)
        wait_until(is_off_the_nodes, f"{node} missed", PATIENCE)
        cluster.revive_node(node)
        if not cluster.is_pending(training.number):
            cluster.run("scontrol", "requeue", training.number)
        cluster.start_soon(training.number, seconds=10)
        training.note_interruption(while_saving)
    training.wait_for_end(seconds)


def time_limit(training: Training, seconds: float) -> None:
    """Let the time limit come nearer until the training is at its end; the script requeues its job."""
    deadline = time.monotonic() + seconds
    while not training.cluster.has_ended(training.number):
        if training.cluster.is_pending(training.number) and training.outcome.interruptions < stops(training):
            training.cluster.start_soon(training.number)
            training.note_interruption()
        if time.monotonic() > deadline:
            raise SlurmError(f"job {training.number} not at its end within {seconds:.0f} s")
        time.sleep(0.3)
    training.wait_for_end(seconds)
    if not training.outcome.interruptions:
        raise SlurmError("the training was at its end before its time was over")


def stops(training: Training) -> int:
    """Count how often a training has been stopped and has saved."""
    return len(STOPPED.findall(training.log_text()))


def signalled(training: Training) -> None:
    """Send SIGTERM to the step: the training saves and the script requeues its job; then end the job for good."""
    cluster = training.cluster
    training.wait_for_checkpoint()
    cluster.run("scancel", "--signal=TERM", f"{training.number}.0")
    wait_until(lambda: bool(ENDED.search(training.log_text())), "the training stopped")
    training.note_interruption()
    saved = STOPPED.findall(training.log_text())
    if not saved or f"{saved[-1]}.state" not in states(training.experiment):
        raise SlurmError("SIGTERM did not save the iteration")
    cluster.start_soon(training.number)
    training.wait_for_checkpoint()
    cluster.run("scancel", training.number)
    wait_until(lambda: cluster.has_ended(training.number), f"job {training.number} cancelled")
    if cluster.job(training.number)["JobState"] != "CANCELLED":
        raise SlurmError(f"scancel left the job {cluster.job(training.number)['JobState']}")
    training.note_interruption()


def carry_out(training: Training, scenario: Callable[[Training], None]) -> Outcome:
    """Put a training through a scenario; a job that is left is cancelled."""
    try:
        scenario(training)
    except SlurmError as error:
        training.outcome.fault = str(error)
    training.read_all()
    training.outcome.exit_codes = training.exit_codes()
    if not training.cluster.has_ended(training.number):
        training.cluster.run("scancel", training.number)
    return training.outcome
