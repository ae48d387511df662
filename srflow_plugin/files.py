"""Files that appear when complete, or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
import stat
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from srflow_plugin.errors import UserError

UNFINISHED = ".unfinished"
NAME_KEPT = 40  # letters of a file's name in that of its unfinished one, which may be no longer than names can be
LOOKING_SHARE = 100  # times what a look for leftovers takes goes by before the next: folders can be large
NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF)  # file servers; folders that none may list
_next_look: dict[Path, float] = {}


def check_new_file(path: Path, overwrite: bool = False) -> None:
    """Say before any work that a file or folder cannot be made there, or would replace another."""
    if path.exists() and not (overwrite and path.is_file()):
        raise UserError(
            f"{path} exists; " + ("choose another name" if overwrite else "give --overwrite or another name")
        )
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is not a folder; make it first")
    check_writable(path.parent)


def check_writable(folder: Path) -> None:
    """Say before any work that a folder, which may not be there yet, cannot be written."""
    with folder_made(folder):
        try:
            with TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise UserError(f"{folder} cannot be written: {error.strerror}; choose another folder") from None


def check_is_file(path: Path) -> None:
    """Say that a file is not there, or is none."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} does not exist; correct the path") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError:  # of names that no file can have
        raise UserError(f"{str(path)!r} is no name of a file; correct the path") from None
    if stat.S_ISDIR(mode):
        raise UserError(f"{path} is a folder; give a file")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is not a file, but a device or a pipe; give a file")


@contextmanager
def folder_made(path: Path) -> Iterator[None]:
    """Make a folder for the block, and those above it; what was not there goes again if the block leaves it empty."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; choose a working folder that can be written") from None
    try:
        yield
    finally:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


@contextmanager
def complete_or_absent(path: Path, replacing: bool = True, is_one_of_many: bool = False) -> Iterator[Path]:
    """Give another name to write to; at the end of the block the file has its own, in place of one that had it.

    After a power cut, too, it is the new one or the old one, whole. A symbolic link of its name is replaced, not
    followed.

    Args:
        path: the file.
        replacing: files of its name; else one that another process has made meanwhile stays.
        is_one_of_many: that :func:`sync_all` puts on the disk together, where each by itself would take its time.

    Raises:
        UserError: there is such a file, and it is not to be replaced.
    """
    unfinished = _unfinished(path)
    try:
        yield unfinished
        is_synced = not is_one_of_many or not hasattr(os, "sync")
        if is_synced:
            sync(unfinished)
        _give_name(unfinished, path, replacing)
        if is_synced:
            sync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file as :func:`complete_or_absent` does."""
    with complete_or_absent(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def save_atomically(state: dict[str, Any], path: Path, replacing: bool = True) -> None:
    """``torch.save``, as :func:`complete_or_absent` does: whatever happens, the file is the new one or the old one.

    Raises:
        OSError: where it cannot be written, as on a full disk.
    """
    import torch

    buffer = BytesIO()  # torch's own writer ends on a full disk with an error that does not say so
    torch.save(state, buffer)
    with complete_or_absent(path, replacing) as unfinished:
        unfinished.write_bytes(buffer.getbuffer())


def no_link(path: str, flags: int) -> int:
    """Open a file that this package makes under a name that everybody knows, as ``opener`` of :func:`open`.

    Raises:
        UserError: somebody has put a symbolic link in its place, to have another file written.
    """
    try:
        return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UserError(f"{path} is a link; delete it") from None


def rename_folder(folder: Path, name: Path) -> None:
    """Give a finished folder its name; the names of its files, which are on the disk, outlive a power cut with it."""
    sync(folder)
    folder.rename(name)
    sync(name.parent)


def sync(path: Path) -> None:
    """Put a file's contents on the disk, or the names in a folder, which some systems do by themselves or not at all.

    Raises:
        OSError: the disk is full, or fails.
    """
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return
    try:
        descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if not (is_folder and error.errno in NO_FOLDER_SYNC):
            raise


def sync_all() -> None:
    """Put all that has been written on the disk, where the system has such a call."""
    if hasattr(os, "sync"):
        os.sync()


def remove_leftovers(folder: Path, alone: bool = False) -> None:
    """Remove what killed processes have left of files in a folder.

    Args:
        folder: need not be there.
        alone: nobody else writes there, so that what is left is of no process that lives on another machine.
    """
    for path in folder.glob(f"*{UNFINISHED}"):
        owner = re.search(rf"\.(\w+)-(\d+)-\w+{re.escape(UNFINISHED)}$", path.name)
        if alone or (owner and owner[1] == _machine() and _has_ended(int(owner[2]))):
            with suppress(OSError):
                path.unlink()


def _unfinished(path: Path) -> Path:
    """Make an empty file beside another; its name tells whose it is, and cannot be foreseen."""
    start = time.monotonic()
    if start >= _next_look.get(path.parent, 0):
        remove_leftovers(path.parent)
        end = time.monotonic()
        _next_look[path.parent] = end + LOOKING_SHARE * (end - start)
    process = f"{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    unfinished = path.with_name(f"{path.name[:NAME_KEPT]}.{process}{UNFINISHED}")
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return unfinished


def _give_name(unfinished: Path, path: Path, replacing: bool) -> None:
    if not replacing:
        try:
            os.link(unfinished, path)  # fails where there is such a name; a look beforehand could be too early
            return
        except (OSError, NotImplementedError):  # of file systems without such links, too
            if path.exists():
                raise UserError(f"{path} exists, made just now by another process; choose another name") from None
    unfinished.replace(path)


def _machine() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _has_ended(process: int) -> bool:
    """Say that a process of this machine is no more; Windows has no way to ask that leaves it alone."""
    if os.name == "nt":
        return False
    try:
        os.kill(process, 0)
        state = (
            Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
        )
    except ProcessLookupError:
        return True
    except (OSError, OverflowError, IndexError):  # of another user; no number of a process; not Linux
        return False
    return state in ("Z", "X")  # killed, and not yet waited for
