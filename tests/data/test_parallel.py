"""Work in several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from srflow_plugin.data.parallel import in_hand, in_parallel, in_threads
from srflow_plugin.errors import TrainingError
from tests.helpers import ROOT, UNIX


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("work", [in_parallel, in_threads])
def test_results_are_in_order(work: Any, workers: int) -> None:
    assert list(work(abs, [-3, 1, -2], workers)) == [3, 1, 2]


def test_threads_work_at_the_same_time_and_are_waited_for() -> None:
    met, ended = threading.Barrier(2), []

    def meet(number: int) -> int:
        met.wait(10)
        ended.append(number)
        return number

    with closing(in_threads(meet, range(2), 2)) as results:
        assert next(results) == 0
    assert sorted(ended) == [0, 1]


def test_processes_have_a_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert list(in_parallel(os.getenv, ["OMP_NUM_THREADS", "MKL_NUM_THREADS"], 2)) == ["1", "1"]
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert list(in_parallel(os.getenv, ["OMP_NUM_THREADS"], 1)) == ["7"]


@pytest.mark.parametrize("work", [in_parallel, in_threads])
def test_a_fault_is_raised_here(work: Any) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        list(work(int, ["1", "x"], 1))


def test_a_worker_that_is_killed_ends_the_work() -> None:
    results = in_parallel(signal.raise_signal, [signal.SIGURG, signal.SIGKILL], 2)  # the first does nothing
    with pytest.raises(TrainingError, match="one of the worker processes was killed, as where memory is short"):
        list(results)


@pytest.mark.parametrize("work", [in_parallel, in_threads])
def test_no_more_is_begun_than_is_soon_handed_out(work: Any) -> None:
    begun = []

    def items() -> Iterator[int]:
        for number in range(50):
            begun.append(number)
            yield number

    results = work(abs, items(), 2)
    assert next(results) == 0 and len(begun) == in_hand(2) == 8
    assert next(results) == 1 and len(begun) == 9
    assert list(results) == list(range(2, 50)) and len(begun) == 50


WORKING = """
import multiprocessing, threading, time
from srflow_plugin.data.parallel import in_parallel

def tell():
    while len(multiprocessing.active_children()) < 2:
        time.sleep(0.02)
    time.sleep(1)  # until they have begun
    print("working", flush=True)

if __name__ == "__main__":
    threading.Thread(target=tell).start()
    list(in_parallel(time.sleep, [1000] * 20, 2))
"""


@UNIX
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_no_worker_outlives_the_process_that_started_it(name: str, tmp_path: Path) -> None:
    script = tmp_path / "working.py"
    script.write_text(WORKING)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None and process.stdout.readline() == "working\n"
    sign = getattr(signal, name)
    process.send_signal(sign)
    process.communicate(timeout=120)  # until all who have this pipe have ended, the workers too
    assert process.returncode == -sign
