"""Files that appear when complete, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from srflow_plugin.errors import UserError


def check_new_file(path: Path) -> None:
    """Say before any work that a file or folder cannot be made there, or would replace another."""
    if path.exists():
        raise UserError(f"{path} exists; delete it or choose another name")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is not a folder; make it first")


@contextmanager
def complete_or_absent(path: Path) -> Iterator[Path]:
    """Give another name to write to; at the end of the block the file has its own."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        yield unfinished
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
