"""Loose ways of BasicSR's option files, settled before the checks. Needs no torch.

BasicSR's own files write 5e3 where a whole number is meant, and have keys at places where BasicSR does not look.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_type_hints

from srflow_plugin.options.schema import (
    DATASETS,
    SECTIONS,
    SRFLOW_MODELS,
    Degradations,
    ImageData,
    Logger,
    Paths,
    Section,
    TopLevel,
    Train,
    Val,
)
from srflow_plugin.options.types import join, make_whole

MISPLACED = {  # in BasicSR's own files for EDVR and RCAN: (section, key) -> where it is read
    ("network_g", "ema_decay"): "train",
    ("", "save_img"): "val",
    ("", "suffix"): "val",
}


def settle(opt: Section) -> list[str]:
    """Settle a file's options in place; list the keys that were moved."""
    moved = [] if opt.get("model_type") in SRFLOW_MODELS else list(_move(opt))
    for section, kind in _sections(opt):
        make_whole(section, get_type_hints(kind))
    return moved


def _move(opt: Section) -> Iterator[str]:
    """Put misplaced keys where they are read, unless something stands there."""
    for (name, key), home in MISPLACED.items():
        section = opt.get(name) if name else opt
        if isinstance(section, dict) and key in section and isinstance(opt.get(home), dict | None):
            opt[home] = {key: section.pop(key), **(opt.get(home) or {})}
            yield f"{join(name, key)} belongs in {home}, where it is read now"


def _sections(opt: Section) -> Iterator[tuple[Section, type]]:
    """List the sections that are there, each with its kind."""
    kinds = {"path": Paths, "train": Train, "val": Val, "logger": Logger}
    kinds.update(SECTIONS.get(str(opt.get("model_type")), {}))
    datasets = opt.get("datasets")
    found: list[tuple[Any, type]] = [
        (opt, TopLevel),
        (opt, Degradations),
        *((opt.get(name), kind) for name, kind in kinds.items()),
    ]
    for dataset in datasets.values() if isinstance(datasets, dict) else ():
        if isinstance(dataset, dict):
            found.append((dataset, DATASETS.get(str(dataset.get("type")), ImageData)))
    yield from ((section, kind) for section, kind in found if isinstance(section, dict))
