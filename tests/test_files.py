"""Files appear when complete, or not at all."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
import torch

from srflow_plugin import files
from srflow_plugin.errors import UserError
from srflow_plugin.files import (
    UNFINISHED,
    check_new_file,
    complete_or_absent,
    folder_made,
    remove_leftovers,
    save_atomically,
    sync,
    write_whole,
)
from tests.helpers import UNIX, run_python


def test_a_file_appears_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with complete_or_absent(path) as unfinished:
        unfinished.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), complete_or_absent(path) as unfinished:
        unfinished.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_state_is_whole_or_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pth"
    save_atomically({"a": torch.ones(2)}, path)
    assert torch.equal(torch.load(path, weights_only=True)["a"], torch.ones(2))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)  # where some disks say so
    with pytest.raises(OSError, match="No space left"):
        save_atomically({"a": torch.zeros(2)}, path)
    assert torch.equal(torch.load(path, weights_only=True)["a"], torch.ones(2))
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    check_new_file(tmp_path / "b")
    check_new_file(tmp_path / "a", overwrite=True)
    for path, overwrite, message in [
        (tmp_path / "a", False, "a exists; give --overwrite or another name"),
        (tmp_path, True, "exists; choose another name"),
        (tmp_path / "no" / "b", False, "no is not a folder; make it first"),
        *(
            [(Path("/proc/b"), False, "/proc cannot be written: .*; choose another folder")]
            if Path("/proc").is_dir()
            else []
        ),
    ]:
        with pytest.raises(UserError, match=message):
            check_new_file(path, overwrite)


@UNIX
@pytest.mark.slow
def test_a_file_too_large_for_its_disk_is_not_left_half(tmp_path: Path) -> None:
    # what the operating system does, and not a stand-in: no file of this process may grow beyond 20 kB
    done = run_python(
        "import resource, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from srflow_plugin.files import save_atomically\n"
        "save_atomically({'old': torch.zeros(9)}, Path('a.pth'))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "try:\n"
        "    save_atomically({'new': torch.zeros(99999)}, Path('a.pth'))\n"
        "except OSError as error:\n"
        "    sys.exit(error.strerror)\n",
        cwd=tmp_path,
    )
    assert done.returncode == 1 and done.stderr.strip() == os.strerror(errno.EFBIG)
    assert list(torch.load(tmp_path / "a.pth")) == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_a_folder_that_stays_empty_goes_again(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("mine", "new/newer", "mine/new"):
        with folder_made(tmp_path / name):
            assert (tmp_path / name).is_dir()
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]
    with folder_made(tmp_path / "new/newer"):
        (tmp_path / "new/file").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "mine", "new"]


@UNIX
def test_links_are_replaced_and_not_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "a"
    victim.write_text("mine")
    (tmp_path / f"a{UNFINISHED}").symlink_to(victim)
    for target in (victim, tmp_path / "nowhere"):
        path.unlink(missing_ok=True)
        path.symlink_to(target)
        with complete_or_absent(path, replacing=target is victim) as unfinished:
            assert not unfinished.is_symlink() and unfinished.parent == tmp_path
            unfinished.write_text("new")
        assert not path.is_symlink() and path.read_text() == "new"
    assert victim.read_text() == "mine" and not (tmp_path / "nowhere").exists()


def test_what_another_process_has_made_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*args: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    for number in range(2):
        path = tmp_path / str(number)
        with complete_or_absent(path, replacing=False) as unfinished:
            unfinished.write_text("first")
        late = complete_or_absent(path, replacing=False)
        with pytest.raises(UserError, match="exists, made just now by another process"), late as unfinished:
            unfinished.write_text("second")
        assert path.read_text() == "first"
        monkeypatch.setattr("os.link", no_links)  # as on some file systems
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


@UNIX
def test_files_have_the_modes_that_others_have(tmp_path: Path) -> None:
    for mask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(mask)
        write_whole(tmp_path / "a", "text")
        os.umask(before)
        assert (tmp_path / "a").stat().st_mode & 0o777 == mode


LEAVE = """
import os, signal, sys
from pathlib import Path
from srflow_plugin.files import complete_or_absent
with complete_or_absent(Path(sys.argv[1])) as unfinished:
    unfinished.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@UNIX
def test_what_a_killed_process_left_goes_with_the_next_file(tmp_path: Path) -> None:
    path = tmp_path / ("long name " * 22)
    write_whole(path, "old")
    run_python(LEAVE.replace("sys.argv[1]", repr(str(path))))
    other = tmp_path / f"b.0-1-x{UNFINISHED}"  # of another machine
    other.touch()
    assert len([*tmp_path.iterdir()]) == 3 and path.read_text() == "old"
    with complete_or_absent(path) as unfinished:
        with complete_or_absent(path) as another:  # of a process that lives
            another.write_text("newer")
        unfinished.write_text("new")
    assert {*tmp_path.iterdir()} == {path, other} and path.read_text() == "new"
    remove_leftovers(tmp_path, alone=True)
    assert [*tmp_path.iterdir()] == [path]


def test_looks_for_leftovers_take_a_small_part_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []

    def slow(folder: Path) -> None:
        looks.append(folder)
        time.sleep(0.01)

    monkeypatch.setattr(files, "remove_leftovers", slow)
    for _ in range(20):
        write_whole(tmp_path / "a", "text")
    assert len(looks) < 5


@pytest.mark.parametrize("fault", [errno.EINVAL, errno.EIO])
def test_folders_that_cannot_be_synced_are_those_of_some_file_servers(
    fault: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(fault, os.strerror(fault))

    (tmp_path / "a").touch()
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match=os.strerror(fault)):
        sync(tmp_path / "a")
    if fault == errno.EINVAL or os.name == "nt":
        sync(tmp_path)
    else:
        with pytest.raises(OSError, match=os.strerror(fault)):
            sync(tmp_path)
