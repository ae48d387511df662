"""Progress bars: tqdm's where it is installed, else a line of text."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def with_progress(items: Sequence[Item], unit: str, disable: bool = False) -> Iterator[Item]:
    """Show on standard error how many of the items are done."""
    if disable:
        yield from items
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield from _with_text(items, unit)
    else:
        yield from tqdm(items, unit=unit)


def _with_text(items: Sequence[Item], unit: str) -> Iterator[Item]:
    for done, item in enumerate(items):
        sys.stderr.write(f"\r{unit} {done + 1} of {len(items)}")
        sys.stderr.flush()
        yield item
    sys.stderr.write("\n")
