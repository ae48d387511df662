"""Locks keep two processes apart, name the holder, and end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from srflow_plugin import locks
from srflow_plugin.errors import UserError
from srflow_plugin.locks import LockFile, beside_others, held
from tests.helpers import UNIX

HOLDER = """
import sys, time
from pathlib import Path
from srflow_plugin.locks import held
with held(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock."""
    monkeypatch.setattr(locks, "PATIENCE", 0.3)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_told_who_holds_a_lock(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    told = rf"it is in use: process {holder.pid} on .*, since .*lock"
    with pytest.raises(UserError, match=told), held(tmp_path / "lock", "it"):
        raise AssertionError


@UNIX
def test_a_lock_ends_with_a_killed_process(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    with held(tmp_path / "lock", "it"):
        assert f"process {os.getpid()} " in (tmp_path / "lock").read_text()


@UNIX
def test_a_link_in_place_of_a_lock_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match="lock is a link; delete it"), held(tmp_path / "lock", "it"):
        raise AssertionError
    assert (tmp_path / "victim").read_text() == "precious"


BESIDE = HOLDER.replace("import held", "import beside_others").replace(
    'held(Path(sys.argv[1]), "it")', "beside_others(Path(sys.argv[1]))"
)


def test_those_who_use_something_together_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    others: list[subprocess.Popen[str]] = []
    with beside_others(path) as before:
        assert before is None
    for count in range(3):
        with beside_others(path) as found:
            assert (found is None) == (count == 0)
            assert found is None or f"process {others[0].pid} on " in found
        command = [sys.executable, "-c", BESIDE, str(path)]
        others.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert others[-1].stdout is not None and others[-1].stdout.readline() == "held\n"
    for other in others:  # the first one, too
        with beside_others(path) as found:
            assert found is not None
        other.kill()
        other.communicate()
    with beside_others(path) as found:
        assert found is None
    assert not path.exists()


def test_numbers_are_locked_apart(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    with LockFile(tmp_path / "lock") as lock:
        assert [lock.claim(number) for number in range(3)] == [False, True, True]


def test_a_lock_file_goes_with_its_last_user(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    with LockFile(tmp_path / "lock"):
        pass
    assert (tmp_path / "lock").exists()  # the holder has it
    with LockFile(tmp_path / "lock") as lock:
        holder.kill()
        holder.wait()
        (tmp_path / "lock").unlink()  # as another process does that has found it free
        assert lock.claim() and (tmp_path / "lock").exists()  # one of the file that others see
    assert not (tmp_path / "lock").exists()


def test_work_goes_on_where_nothing_can_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locks, "_lock", refuse)
    with held(tmp_path / "lock", "it"):
        assert "cannot be locked (No locks available)" in caplog.text


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file or directory; choose a folder"):
        LockFile(tmp_path / "missing" / "lock")
