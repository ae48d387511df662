"""Work that several processes share: each item is done by one of them. Needs no torch, and no process group.

The processes may be those of torchrun or srun, on one machine or several, or commands typed in two shells. All they
have in common is a folder: what is in it is done, and a lock file there says what is in somebody's hands. Locks end
with their process, so that what a killed one had in hand is taken up by the others.
"""

from __future__ import annotations

import os
import socket
import time
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, TypeVar

from srflow_plugin.errors import UserError
from srflow_plugin.locks import LockFile

LOCK_FILE = ".srflow.lock"
LOCKS = 2**30  # numbers that names become; two names of one number only wait for each other
PAUSE = 0.2  # seconds between two looks at what others have in hand

Item = TypeVar("Item")


class Process(NamedTuple):
    """Place of a process among those that a launcher has started."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on its machine


def this_process() -> Process:
    """Find this process's place from what torchrun or srun tell it; without them it is the only one."""
    told = os.environ
    if "RANK" in told and "WORLD_SIZE" in told:
        return Process(int(told["RANK"]), int(told["WORLD_SIZE"]), int(told.get("LOCAL_RANK", 0)))
    if "SLURM_STEP_ID" in told and int(told.get("SLURM_NTASKS", 1)) > 1:  # without a step it is the batch script
        return Process(int(told["SLURM_PROCID"]), int(told["SLURM_NTASKS"]), int(told.get("SLURM_LOCALID", 0)))
    return Process()


def this_launch() -> str:
    """Name the launch: the same in all processes of one, another in the next.

    Raises:
        UserError: torchrun's processes on several machines cannot tell.
    """
    told, machine = os.environ, socket.gethostname()
    if "TORCHELASTIC_RUN_ID" in told:
        if told.get("LOCAL_WORLD_SIZE") == told.get("WORLD_SIZE"):
            return f"{machine} {os.getppid()}"  # torchrun itself
        if told["TORCHELASTIC_RUN_ID"] == "none":
            raise UserError("--overwrite on several machines: give torchrun an --rdzv-id, another for every run")
        return told["TORCHELASTIC_RUN_ID"]
    if this_process().size > 1 and "SLURM_STEP_ID" in told:
        return f"{told['SLURM_JOB_ID']}.{told['SLURM_STEP_ID']}"
    return f"{machine} {os.getpid()}"


def in_shares(
    items: Sequence[Item], name: Callable[[Item], str], is_done: Callable[[Item], bool], folder: Path
) -> Generator[Item]:
    """Go through the items that this process is to do now, until each is done, or was tried here.

    Args:
        items: the same in all processes, in the same order.
        name: of an item, the same in all processes.
        is_done: of an item; asked again once no other process has it in hand.
        folder: has the lock file meanwhile.
    """
    with closing(rounds(items, name, is_done, folder)) as all_rounds:
        for items_of_round in all_rounds:
            yield from items_of_round


def rounds(
    items: Sequence[Item],
    name: Callable[[Item], str],
    is_done: Callable[[Item], bool],
    folder: Path,
    in_hand: int = 1,
) -> Generator[Iterator[Item]]:
    """Go through the items as :func:`in_shares` does, in rounds: a round leaves out what others have in hand.

    Args:
        items, name, is_done, folder: see there.
        in_hand: number of items that may be taken before the first of them is done.
    """
    here = this_process()
    first = here.rank * len(items) // here.size
    left = [*items[first:], *items[:first]]
    with LockFile(folder / LOCK_FILE) as lock:
        while left:
            taken: deque[int] = deque()
            with_others: list[Item] = []
            yield _round(left, name, is_done, lock, in_hand, taken, with_others)
            for number in taken:
                lock.release(number)
            left = with_others
            if left:
                time.sleep(PAUSE)


def _round(
    items: Sequence[Item],
    name: Callable[[Item], str],
    is_done: Callable[[Item], bool],
    lock: LockFile,
    in_hand: int,
    taken: deque[int],
    with_others: list[Item],
) -> Iterator[Item]:
    """Take item after item; note the locks of those in hand, and the items that other processes have in hand."""
    for item in items:
        number = zlib.crc32(name(item).encode()) % LOCKS
        if is_done(item):
            continue
        if not lock.claim(number):
            with_others.append(item)
            continue
        taken.append(number)
        if not is_done(item):
            yield item
        if len(taken) >= in_hand:
            lock.release(taken.popleft())
