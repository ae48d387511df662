"""Progress bars: tqdm's where it is installed, else a line of text."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from srflow_plugin.errors import printable

Item = TypeVar("Item")


def with_progress(items: Iterable[Item], unit: str, disable: bool = False, total: int | None = None) -> Iterator[Item]:
    """Show on standard error how many of the items are done, of as many as there are, or of ``total``."""
    if disable:
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    try:
        from tqdm import tqdm
    except ImportError:
        yield from _with_text(items, unit, total)
    else:
        yield from tqdm(items, unit=unit, total=total)


def tell(line: str) -> None:
    """Write a line on standard error, above a bar if there is one; nothing in it can move the cursor."""
    line = printable(line)
    try:
        from tqdm import tqdm
    except ImportError:
        sys.stderr.write(f"\r{line}\n" if sys.stderr.isatty() else f"{line}\n")
    else:
        tqdm.write(line, file=sys.stderr)


def say(line: str) -> None:
    """Write a line on standard output; nothing in it can move the cursor."""
    sys.stdout.write(f"{printable(line)}\n")


def _with_text(items: Iterable[Item], unit: str, total: int | None) -> Iterator[Item]:
    for done, item in enumerate(items):
        sys.stderr.write(f"\r{unit} {done + 1} of {total}")
        sys.stderr.flush()
        yield item
    sys.stderr.write("\n")
