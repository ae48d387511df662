"""Files that appear when complete, or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from srflow_plugin.errors import UserError


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
def complete_or_absent(path: Path) -> Iterator[Path]:
    """Give another name to write to; at the end of the block the file has its own, in place of one that had it."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """``torch.save``; whatever happens meanwhile, the file is the new one or the old one, whole.

    Raises:
        OSError: where it cannot be written, as on a full disk.
    """
    import torch

    buffer = BytesIO()  # torch's own writer ends on a full disk with an error that does not say so
    torch.save(state, buffer)
    with complete_or_absent(path) as unfinished, unfinished.open("wb") as file:
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())  # or the new name could outlive a power cut, and its contents not
