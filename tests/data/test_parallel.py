"""Work in several processes."""

from __future__ import annotations

import os

import pytest

from srflow_plugin.data.parallel import in_parallel


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
