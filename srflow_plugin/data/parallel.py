"""Work on many items in several processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """Call ``function`` with each item, in order. With several workers it, items and results must be importable."""
    if workers == 1:
        yield from map(function, items)
    else:
        with _one_thread_each(), multiprocessing.get_context("spawn").Pool(workers) as pool:
            yield from pool.imap(function, items)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started in the block calculate with a thread each, not with as many as there are cores."""
    before = dict(os.environ)
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
