"""Work in several processes."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from srflow_plugin.data.parallel import AHEAD, in_parallel
from srflow_plugin.errors import TrainingError


@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_in_order(workers: int) -> None:
    assert list(in_parallel(abs, [-3, 1, -2], workers)) == [3, 1, 2]


def test_processes_have_a_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert list(in_parallel(os.getenv, ["OMP_NUM_THREADS", "MKL_NUM_THREADS"], 2)) == ["1", "1"]
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert list(in_parallel(os.getenv, ["OMP_NUM_THREADS"], 1)) == ["7"]


def test_a_fault_is_raised_here() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        list(in_parallel(int, ["1", "x"], 1))


def end_at(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_a_killed_process_ends_the_work_with_a_line() -> None:
    done: list[int] = []
    with pytest.raises(TrainingError, match=r"one of the processes was killed, .*; what is done stays"):
        done.extend(in_parallel(end_at, range(40), 2))
    assert done == list(range(len(done))) and len(done) <= 3


def test_no_more_results_wait_than_a_few_for_each_process(tmp_path: Path) -> None:
    results = in_parallel(partial(note, tmp_path), range(40), 2)
    assert next(results) == 0
    assert len(list(tmp_path.iterdir())) <= 2 * AHEAD + 1
    assert list(results) == list(range(1, 40))


def note(folder: Path, number: int) -> int:
    (folder / str(number)).touch()
    return number
