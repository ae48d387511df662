"""Memory that can be had: of machines, containers, processes and devices, as each of them tells it."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from srflow_plugin import memory
from srflow_plugin.memory import available_bytes
from tests.helpers import UNIX

GIB = 2**30
MEMINFO = f"MemTotal:  {16 * 2**20} kB\nMemFree:  {1 * 2**20} kB\nMemAvailable:  {8 * 2**20} kB\nHugePages_Total: 0\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Linux machine without psutil, and without containers: a folder with its proc/ and cgroup/."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text(MEMINFO)
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    _without(monkeypatch, "psutil", "resource")
    return tmp_path


def _without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Take modules away, as on systems that have none."""
    usual = builtins.__import__

    def imported(name: str, *args: Any, **kwargs: Any) -> Any:
        if name in modules:
            raise ImportError(f"No module named {name!r}", name=name)
        return usual(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", imported)


def _group(machine: Path, path: str, **files: str | int) -> None:
    """Make a control group with files whose names have __ for each full stop."""
    folder = machine / "cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_available_counts_not_free(machine: Path) -> None:
    assert available_bytes() == 8 * GIB
    assert available_bytes(torch.device("cpu")) == 8 * GIB


def test_psutil_is_asked_where_it_is(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Psutil:
        @staticmethod
        def virtual_memory() -> Any:
            return type("Memory", (), {"available": 5 * GIB, "free": 1})

    monkeypatch.undo()
    monkeypatch.setattr(memory, "PROC", machine / "nothing")
    monkeypatch.setitem(sys.modules, "psutil", Psutil)
    assert memory._of_machine() == [5 * GIB]
    monkeypatch.setattr(Psutil, "virtual_memory", lambda: int("no /proc is mounted"))
    monkeypatch.setattr(memory, "PROC", machine / "proc")
    assert memory._of_machine() == [8 * GIB]


@pytest.mark.parametrize(
    ("files", "left"),
    [
        (
            {"memory__max": 2 * GIB, "memory__current": GIB, "memory__stat": f"anon 5\ninactive_file {GIB // 2}"},
            3 * 2**29,
        ),
        ({"memory__max": 2 * GIB, "memory__current": GIB}, GIB),
        ({"memory__max": "max", "memory__high": 3 * GIB, "memory__current": GIB}, 2 * GIB),
        ({"memory__max": "max", "memory__high": "max", "memory__current": GIB}, 8 * GIB),
        ({"memory__max": GIB, "memory__current": 2 * GIB}, 0),
        ({"memory__max": 99 * GIB, "memory__current": GIB}, 8 * GIB),
        ({"memory__max": "", "memory__current": GIB}, 8 * GIB),
        ({"memory__max": GIB}, GIB),
    ],
)
@pytest.mark.parametrize("path", ["", "job/step", "job/step/task"])
def test_a_containers_limit_counts_and_what_its_cache_holds_is_free(
    machine: Path, files: dict[str, Any], left: int, path: str
) -> None:
    (machine / "proc" / "self" / "cgroup").write_text("0::/job/step/task\n")
    _group(machine, "job/step/task", memory__max="max")
    _group(machine, path, **files)
    assert available_bytes() == left


def test_the_narrowest_of_nested_containers_counts(machine: Path) -> None:
    (machine / "proc" / "self" / "cgroup").write_text("0::/../job/task\n")
    _group(machine, "job", memory__max=4 * GIB, memory__current=3 * GIB)
    _group(machine, "job/task", memory__max=2 * GIB, memory__current=5)
    assert available_bytes() == GIB


@pytest.mark.parametrize("path", ["docker/abc", "docker", ""])
def test_a_containers_limit_counts_on_older_systems(machine: Path, path: str) -> None:
    lines = "12:cpuset:/docker/abc\n4:hugetlb,memory:/docker/abc\n0::/system.slice\nnonsense\n"
    (machine / "proc" / "self" / "cgroup").write_text(lines)
    limits = {"memory__limit_in_bytes": 2 * GIB, "memory__usage_in_bytes": GIB}
    _group(machine, f"memory/{path}", **limits, memory__stat=f"inactive_file 1\ntotal_inactive_file {GIB // 2}")
    assert available_bytes() == 3 * 2**29
    _group(machine, f"memory/{path}", memory__limit_in_bytes=9223372036854771712)
    assert available_bytes() == 8 * GIB


@UNIX
@pytest.mark.parametrize("limit", ["-v", "-d"])
def test_limits_of_the_process_count(limit: str) -> None:
    code = "from srflow_plugin.memory import available_bytes; print(available_bytes())"
    command = ["bash", "-c", f"ulimit {limit} {2**20}; exec {sys.executable} -c '{code}'"]
    left = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 0 < left < GIB


def test_macos_and_windows_without_psutil_tell_nothing(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "proc" / "meminfo").unlink()

    def sysconf(name: str) -> int:
        if name == "SC_AVPHYS_PAGES":
            raise ValueError("unrecognized configuration name")
        return 4096

    monkeypatch.setattr(os, "sysconf", sysconf, raising=False)
    assert available_bytes() is None
    monkeypatch.setattr(os, "sysconf", lambda name: -1)
    assert available_bytes() is None
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_AVPHYS_PAGES": 100, "SC_PAGE_SIZE": 4096}[name])
    assert available_bytes() == 409600
    monkeypatch.delattr(os, "sysconf")
    assert available_bytes() is None


def test_an_accelerator_is_asked_through_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"mem_get_info": (GIB, 2 * GIB), "memory_reserved": 500, "memory_allocated": 400}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert available_bytes(torch.device("cuda", 1)) == GIB + 100
    if hasattr(torch, "accelerator"):
        monkeypatch.delattr(torch.cuda, "mem_get_info")
        monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda device: (77, 99), raising=False)
        assert available_bytes(torch.device("cuda", 1)) == 177


def test_an_accelerator_that_shares_memory_has_no_more(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: GIB)
    for most, left in ((3 * GIB, 2 * GIB), (99 * GIB, 8 * GIB), (0, 0)):
        monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda most=most: most, raising=False)
        assert available_bytes(torch.device("mps")) == left


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps", "hpu", "privateuseone"])
def test_an_accelerator_that_does_not_answer_is_unknown(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*args: Any) -> Any:
        raise RuntimeError("no driver")

    monkeypatch.setattr(torch.cuda, "mem_get_info", refuses)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", refuses)
    assert available_bytes(torch.device(kind)) is None
