"""Work that processes share: each item is done once, and those of a killed process by the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from srflow_plugin.errors import UserError
from srflow_plugin.shares import LOCK_FILE, Process, in_shares, rounds, this_launch, this_process
from tests.helpers import ROOT

WORKER = """
import sys, time
from pathlib import Path
from srflow_plugin.shares import in_shares
folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
items = [folder / str(number) for number in range(12)]
for item in in_shares(items, str, Path.exists, folder):
    with (folder / "begun").open("a") as file:
        file.write(item.name + "\\n")
    time.sleep(seconds)
    item.touch()
"""
LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID", "SLURM_STEP_ID")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher but the test."""
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)


def start(folder: Path, seconds: float, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WORKER, str(folder), str(seconds)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT), **environment})


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def begun(folder: Path) -> list[str]:
    path = folder / "begun"
    return path.read_text().splitlines() if path.exists() else []


def everything(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"begun"}


def test_two_shells_do_nothing_twice(tmp_path: Path) -> None:
    processes = [start(tmp_path, 0.1) for _ in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert sorted(begun(tmp_path), key=int) == [str(number) for number in range(12)]
    assert everything(tmp_path) == {str(number) for number in range(12)}  # no lock file


def test_ranks_begin_at_places_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        orders.append(list(in_shares(list(range(7)), str, lambda item: False, tmp_path)))
    assert orders == [[0, 1, 2, 3, 4, 5, 6], [2, 3, 4, 5, 6, 0, 1], [4, 5, 6, 0, 1, 2, 3]]


def test_what_a_killed_process_has_in_hand_is_done_by_the_others(tmp_path: Path) -> None:
    doomed = start(tmp_path, 1000)
    wait_for(lambda: begun(tmp_path) == ["0"])
    other = start(tmp_path, 0)
    wait_for(lambda: (tmp_path / "11").exists())
    time.sleep(0.5)
    assert other.poll() is None and not (tmp_path / "0").exists()  # it waits for what is in hand
    doomed.send_signal(signal.SIGKILL)
    assert other.wait(timeout=60) == 0 and doomed.wait() == -signal.SIGKILL
    assert begun(tmp_path) == ["0", *map(str, range(1, 12)), "0"]
    assert everything(tmp_path) == {str(number) for number in range(12)}


def test_items_are_tried_once_and_what_is_done_is_passed_over(tmp_path: Path) -> None:
    tried = []
    for item in in_shares(["a", "b", "c"], str, lambda item: item == "b", tmp_path):
        assert (tmp_path / LOCK_FILE).exists()
        tried.append(item)
    assert tried == ["a", "c"] and not list(tmp_path.iterdir())
    for _ in in_shares(["a"], str, lambda item: False, tmp_path):
        break
    assert not list(tmp_path.iterdir())  # nor after an end before the end


def test_several_items_may_be_in_hand(tmp_path: Path) -> None:
    """Items stay locked until as many others have been taken, and all of them until their round is over."""
    script = "import sys; from pathlib import Path; from srflow_plugin.locks import LockFile; import zlib\n" + (
        "lock = LockFile(Path(sys.argv[1]))\n"
        "print(*(name for name in 'abcde' if not lock.claim(zlib.crc32(name.encode()) % 2**30)))"
    )

    def locked() -> list[str]:
        command = [sys.executable, "-c", script, str(tmp_path / LOCK_FILE)]
        return subprocess.check_output(command, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}).split()

    all_rounds = rounds("abcde", str, lambda item: False, tmp_path, in_hand=3)
    items = next(all_rounds)
    assert [next(items) for _ in range(5)] == list("abcde")
    assert locked() == list("cde")
    assert next(items, None) is None and locked() == list("de")
    assert next(all_rounds, None) is None and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, (0, 1, 0)),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, (5, 8, 1)),
        ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1"}, (3, 4, 1)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}, (0, 1, 0)),  # the batch script itself
        ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, (0, 1, 0)),
    ],
)
def test_launchers_tell_each_process_its_place(
    environment: dict[str, str], place: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert this_process() == Process(*place)


def test_a_launch_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(os.getpid()) in this_launch()
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"}.items():
        monkeypatch.setenv(name, value)
    assert str(os.getppid()) in this_launch()
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError, match="give torchrun an --rdzv-id"):
        this_launch()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    assert this_launch() == "mine"
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    monkeypatch.delenv("RANK")
    slurm = {"SLURM_STEP_ID": "7", "SLURM_JOB_ID": "12", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    assert this_launch() == "12.7"
