"""Work on many items in several processes."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from srflow_plugin.errors import TrainingError

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 4  # items a worker that are begun before their turn: no more results than that wait in memory


def in_parallel(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """Call ``function`` with each item, in order. With several workers it, items and results must be importable.

    Raises:
        TrainingError: a worker was killed, as by a system that runs out of memory; what was yielded stays.
    """
    if workers == 1:
        yield from map(function, items)
        return
    left = iter(items)
    spawn = multiprocessing.get_context("spawn")
    with _one_thread_each(), ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        begun: deque[Future[Result]] = deque()
        try:
            begun.extend(pool.submit(function, item) for item in islice(left, AHEAD * workers))
            while begun:
                result = begun.popleft().result()
                begun.extend(pool.submit(function, item) for item in islice(left, 1))
                yield result
        except BrokenProcessPool:
            raise TrainingError(
                "one of the processes was killed, perhaps for lack of memory; what is done stays. Start again, with "
                "fewer --workers"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


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
