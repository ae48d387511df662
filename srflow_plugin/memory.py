"""Memory that can be had now: of a device, of the machine, of the container, of the process. Needs no torch for CPUs.

Systems tell it in different places, and some not at all; all that is known counts, and the least is what there is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
KIB = 1024
SHORTAGE = ("out of memory", "can't allocate memory", "not enough memory", "out_of_memory")
Files = tuple[tuple[str, ...], str, str]
ANSWERS_NOT = (RuntimeError, AssertionError, AttributeError, NotImplementedError, TypeError, ValueError, OSError)
# Files of a container's limits: what it may have, what it has, what of that is a cache that the system gives back.
CGROUP_V2: Files = (("memory.max", "memory.high"), "memory.current", "inactive_file")
CGROUP_V1: Files = (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file")
# Limits of a process, with the column of /proc/self/statm that counts towards them.
PROCESS_LIMITS = {"RLIMIT_AS": 0, "RLIMIT_DATA": 5}


def available_bytes(device: torch.device | None = None) -> int | None:
    """Count the bytes that can be had on a device, by default the CPU; None where the system does not tell.

    What programs have freed and the system, or torch, keeps as a cache can be had. The limits of a container, and of
    ``ulimit``, count.

    >>> available_bytes() > 0
    True
    """
    if device is not None and device.type not in ("cpu", "meta"):
        return _of_accelerator(device)
    known = [*_of_machine(), *_of_containers(), *_of_process()]
    return max(0, min(known)) if known else None


def is_shortage(error: BaseException) -> bool:
    """Say whether an error is that memory, of the machine or of a device, is too small.

    >>> is_shortage(RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")), is_shortage(RuntimeError("else"))
    (True, False)
    """
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in SHORTAGE)


def _of_accelerator(device: torch.device) -> int | None:
    """Ask torch for the memory of an accelerator."""
    import torch

    try:
        if device.type == "mps":  # shares the machine's
            own = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
            return max(0, min([own, *_of_machine()]))
        module = getattr(torch, device.type, None)
        ask = getattr(module, "mem_get_info", None) or torch.accelerator.get_memory_info
        return int(ask(device)[0]) + _cached(module, device)
    except ANSWERS_NOT:
        return None


def _cached(module: object, device: torch.device) -> int:
    """Count what torch keeps of a device's memory for its next tensors."""
    try:
        return int(module.memory_reserved(device) - module.memory_allocated(device))  # type: ignore[attr-defined]
    except ANSWERS_NOT:
        return 0


def _of_machine() -> list[int]:
    """Find the machine's available memory where a library or the system tells it: one number, or none."""
    try:
        import psutil

        return [int(psutil.virtual_memory().available)]
    except (ImportError, *ANSWERS_NOT):
        pass
    available = _numbers(PROC / "meminfo").get("MemAvailable:")
    if available is not None:
        return [available * KIB]
    try:
        pages, size = os.sysconf("SC_AVPHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except ANSWERS_NOT:  # of macOS; of Windows, which has no sysconf
        return []
    return [pages * size] if min(pages, size) > 0 else []


def _of_containers() -> Iterator[int]:
    """Find what the limits of this process's control group, and of those around it, leave."""
    for line in _lines(PROC / "self" / "cgroup"):
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers:
            root, (limits, usage, cache) = CGROUPS, CGROUP_V2
        elif "memory" in controllers.split(","):
            root, (limits, usage, cache) = CGROUPS / "memory", CGROUP_V1
        else:
            continue
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        for depth in range(len(parts) + 1):
            folder = root.joinpath(*parts[:depth])
            known = [limit for name in limits for limit in _whole(folder / name)]
            if known:
                used = sum(_whole(folder / usage)) - _numbers(folder / "memory.stat").get(cache, 0)
                yield min(known) - max(0, used)


def _of_process() -> Iterator[int]:
    """Find what ``ulimit -v`` and ``ulimit -d`` leave to this process."""
    try:
        import resource

        page = os.sysconf("SC_PAGE_SIZE")
    except (ImportError, *ANSWERS_NOT):
        return
    pages = [int(word) for line in _lines(PROC / "self" / "statm") for word in line.split()]
    for name, column in PROCESS_LIMITS.items():
        limit = resource.getrlimit(getattr(resource, name))[0] if hasattr(resource, name) else resource.RLIM_INFINITY
        if limit != resource.RLIM_INFINITY:
            yield limit - (pages[column] * page if len(pages) > column else 0)


def _lines(path: Path) -> list[str]:
    """Read a file of the system's: its lines, none where it cannot be read."""
    try:
        return path.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _whole(path: Path) -> list[int]:
    """Read a whole number of the system's; none of "max", or where there is no such file."""
    return [int(line) for line in _lines(path)[:1] if line.strip().isdecimal()]


def _numbers(path: Path) -> dict[str, int]:
    """Read a table of the system's: names and whole numbers."""
    rows = (line.split() for line in _lines(path))
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}
