"""Work that processes share: each item is done once, by whoever is there; what a killed process had in hand is done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from srflow_plugin import shares
from srflow_plugin.errors import UserError
from srflow_plugin.shares import LOCK_FILE, Process, in_shares, this_launch, this_process

# A process that works through the numbers, slowly, and notes each that it does.
WORKER = """
import os, sys, time
from pathlib import Path
from srflow_plugin.shares import in_shares
folder, pause = Path(sys.argv[1]), float(sys.argv[2])
for number in in_shares(range(12), str, lambda number: (folder / f"{number}.done").exists(), folder):
    with (folder / "log").open("a") as log:
        log.write(f"{number}\\n")
    time.sleep(pause)
    (folder / f"{number}.done").touch()
"""


def start(folder: Path, pause: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WORKER, str(folder), str(pause)])


def test_alone_each_item_is_done_in_order(tmp_path: Path) -> None:
    assert list(in_shares(range(5), str, lambda number: number == 3, tmp_path)) == [0, 1, 2, 4]
    assert list(tmp_path.iterdir()) == []


def test_ranks_begin_at_their_own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "this_process", lambda: Process(1, 2))
    assert list(in_shares(range(5), str, lambda _: False, tmp_path)) == [2, 3, 4, 0, 1]


def test_each_item_is_done_once(tmp_path: Path) -> None:
    workers = [start(tmp_path, 0.05) for _ in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    numbers = [int(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(numbers) == list(range(12))
    assert not (tmp_path / LOCK_FILE).exists()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_a_killed_process_loses_only_what_it_had_in_hand(tmp_path: Path) -> None:
    killed = start(tmp_path, 60)
    while not (tmp_path / "log").exists():
        time.sleep(0.02)
    other = start(tmp_path, 0.01)
    while len(list(tmp_path.glob("*.done"))) < 11:
        time.sleep(0.02)
    assert other.poll() is None  # it waits for what the first has in hand
    killed.kill()
    killed.wait()
    assert other.wait(60) == 0
    numbers = [int(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(numbers) == [0, 0, *range(1, 12)]
    assert len(list(tmp_path.glob("*.done"))) == 12


@pytest.mark.parametrize(
    ("told", "process"),
    [
        ({}, Process()),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, Process(3, 4, 1)),
        ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}, Process(2, 4, 0)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, Process()),  # the batch script
    ],
)
def test_the_place_is_what_the_launcher_says(
    told: dict[str, str], process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", told)
    assert this_process() == process


def test_a_launch_has_a_name_that_its_processes_share(monkeypatch: pytest.MonkeyPatch) -> None:
    step = {"SLURM_STEP_ID": "1", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}
    monkeypatch.setattr(os, "environ", step)
    assert this_launch() == "7.1"
    torchrun = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "1", "WORLD_SIZE": "2"}
    monkeypatch.setattr(os, "environ", torchrun)
    with pytest.raises(UserError, match="give torchrun an --rdzv-id"):
        this_launch()
    monkeypatch.setattr(os, "environ", {**torchrun, "TORCHELASTIC_RUN_ID": "night"})
    assert this_launch() == "night"
