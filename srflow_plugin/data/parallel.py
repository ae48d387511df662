"""Work on many items in several processes, or in several threads of this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from srflow_plugin.errors import TrainingError

AHEAD = 4  # items for each worker that are begun before the first of them is handed out

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Generator[Result]:
    """Call ``function`` with each item, in order. With several workers it, items and results must be importable.

    Raises:
        TrainingError: a worker was killed.
    """
    if workers == 1:
        yield from map(function, items)
        return
    with _one_thread_each(), _pool(workers) as pool:
        try:
            yield from _by(pool, function, items, in_hand(workers))
        except BrokenProcessPool:
            raise TrainingError(
                "one of the worker processes was killed, as where memory is short; what is done is kept: "
                "start the command again, with fewer --workers"
            ) from None


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Generator[Result]:
    """Call ``function`` with each item, in order. What it calculates with must let other threads run meanwhile.

    Where the block is left early, by Ctrl-C, too, those that have begun are waited for.
    """
    with ThreadPoolExecutor(threads) as pool:
        try:
            yield from _by(pool, function, items, in_hand(threads))
        finally:
            pool.shutdown(cancel_futures=True)


def _by(pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], at_once: int) -> Generator[Result]:
    begun: deque[Future[Result]] = deque()
    for item in items:
        begun.append(pool.submit(function, item))
        if len(begun) == at_once:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


def in_hand(workers: int) -> int:
    """Count the items that a call with so many workers may have begun and not handed out."""
    return AHEAD * workers if workers > 1 else 1


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Start processes; none is left at the end of the block, however it ends, and none outlives this one."""
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin)
    try:
        yield pool
    except BaseException:
        for process in multiprocessing.active_children():
            if process not in others:
                process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Leave Ctrl-C, which reaches the workers, too, to the process that started them; end when that one has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


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
