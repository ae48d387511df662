"""Files appear when complete, or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from srflow_plugin.errors import UserError
from srflow_plugin.files import check_new_file, complete_or_absent, folder_made, save_atomically
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

    monkeypatch.setattr("os.fsync", full)
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
