"""A whole benchmark: methods and sets chosen, drawn, scored, reported, in a folder that says how."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from srflow_plugin.checkpoints.shipped import find_checkpoint
from srflow_plugin.errors import UserError
from srflow_plugin.files import write_whole
from srflow_plugin.leaderboard.check import checked_set, with_files
from srflow_plugin.leaderboard.draw import Method, Settings, checkpoint_methods, draw_all, fingerprint, folder_of
from srflow_plugin.leaderboard.records import Records
from srflow_plugin.leaderboard.report import write_report
from srflow_plugin.leaderboard.score import score_all
from srflow_plugin.leaderboard.sets import BenchmarkSet
from srflow_plugin.locks import LockFile, beside_others
from srflow_plugin.metrics.perceptual import perceptual_distance
from srflow_plugin.sampling.temperature import Temperature
from srflow_plugin.shares import this_process

NamedPath = tuple[str, str]
PARTS_OF_METHOD = ("temperature", "num_samples", "weights")  # as they are described
HOW = ("device", "compile")  # settings that change how fast a benchmark is, not what it measures


def run_benchmark(
    folder: Path, sets: Sequence[BenchmarkSet], methods: Sequence[Method], settings: Settings, workers: int | None
) -> str:
    """Draw, score and report what is not there yet; return the table.

    Processes that do the same in one folder share the work; one that would do it otherwise is refused. Of several that
    a launcher has started the first one reports, once all is drawn and scored.
    """
    perceptual_distance(settings.distance, settings.net)  # says at once if it cannot be had
    drawn, scores = Records(folder / "drawn.jsonl"), Records(folder / "scores.jsonl")
    methods = [with_files(method, sets) for method in methods]
    sets = [checked_set(dataset, methods, settings, scores.has) for dataset in sets]
    folder.mkdir(parents=True, exist_ok=True)
    alone = folder / ".report.lock"  # with the files that are written whole
    with ExitStack() as stack:
        with LockFile(alone) as lock, lock.holding():
            others = stack.enter_context(beside_others(folder / ".benchmark.lock"))
            used = {name for key in (*drawn.values, *scores.values) for name in key[:2]}
            _check_same(folder / "protocol.json", sets, methods, settings, used, others)
        draw_all(folder, sets, methods, settings, drawn)
        cores = 1 if this_process().size > 1 else os.cpu_count() or 1
        score_all(folder, sets, methods, settings, scores, workers or cores)
        if this_process().rank > 0:
            return ""
        with LockFile(alone) as lock, lock.holding():
            return write_report(folder, sets, methods, settings, drawn, scores)


def choose_methods(
    *,
    checkpoints: Sequence[str],
    temperatures: Sequence[Temperature],
    num_samples: int,
    networks: Sequence[NamedPath],
    folders: Sequence[NamedPath],
    bicubic: bool,
) -> list[Method]:
    """Make the rows of a table.

    Args:
        checkpoints: SRFlow networks, each at every temperature with so many samples.
        temperatures, num_samples: see there.
        networks: names and option files of other networks.
        folders: names and folders of other methods' files.
        bicubic: bicubic upscaling, too.
    """
    methods = [Method("bicubic")] if bicubic else []
    for checkpoint in checkpoints:
        methods += checkpoint_methods(find_checkpoint(checkpoint), temperatures, num_samples)
    for name, file in networks:
        if not Path(file).is_file():
            raise UserError(f"{file} does not exist; correct the path")
        methods.append(Method(name, source=Path(file)))
    methods += [Method(name, source=Path(folder), draws=False) for name, folder in folders]
    return methods


def check_names(methods: Sequence[str], sets: Sequence[str]) -> None:
    """Check that names become folders, and folders of their own."""
    for kind, names in (("method", methods), ("data set", sets)):
        by_folder: dict[str, str] = {}
        for name in names:
            if set(name) & set("/\\") or not name.strip(". ") or not name.isprintable():
                raise UserError(f"{kind} {name!r}: a plain name is needed, without /")
            folder = folder_of(name).casefold()  # some systems know no case
            if other := by_folder.get(folder):
                called = f"called {name!r}" if name == other else f"{other!r} and {name!r}, which share a folder"
                raise UserError(f"two {kind}s are {called}; give each a name of its own")
            by_folder[folder] = name


def _change(earlier: Any, now: Any) -> str:
    """Say what has changed of what is described; nothing of what no line holds, as the images of a set."""
    if not isinstance(now, list):
        return f" ({earlier}, now {now})"
    if len(earlier) != len(now) or not all(value is None or isinstance(value, (int, float, str)) for value in now):
        return ""
    parts = zip(PARTS_OF_METHOD, earlier, now, strict=False)
    return f" ({', '.join(f'{part} {before}, now {value}' for part, before, value in parts if before != value)})"


def _check_same(
    path: Path,
    sets: Sequence[BenchmarkSet],
    methods: Sequence[Method],
    settings: Settings,
    used: set[str],
    others: str | None,
) -> None:
    """Check that what is in the folder was made in the same way.

    Sets and methods may be added; those ``used`` have results. None of those that ``others`` make now may change.
    """
    described: dict[str, Any] = {key: value for key, value in settings._asdict().items() if key not in HOW}
    for dataset in sets:
        described[f"set {dataset.name}"] = [
            [str(pair.hr.absolute()), str(pair.lr.absolute())] for pair in dataset.pairs
        ]
    for method in methods:
        source = method.source and fingerprint(method.source)
        num_samples = method.num_samples if method.draws else 1  # files are told by the source
        described[f"method {method.name}"] = [method.temperature, num_samples, source]
    earlier = _protocol(path)
    for key, value in described.items():
        name = key.partition(" ")[2]  # of a set or method
        is_used = others is not None or (bool(used) and (not name or name in used))
        before = earlier.get(key, Settings._field_defaults.get(key, value))  # as before there was such a setting
        if before != value and is_used:
            now = f", which {others} makes now" if others else ""
            change = _change(before, value)
            raise UserError(f"{path.parent} holds a benchmark with another {key}{change}{now}; name another folder: -o")
    methods_and_sets = (
        [key.removeprefix(kind) for key in {**earlier, **described} if key.startswith(kind)]
        for kind in ("method ", "set ")
    )
    check_names(*methods_and_sets)
    write_whole(path, json.dumps({**earlier, **described}, indent=1) + "\n")


def _protocol(path: Path) -> dict[str, Any]:
    """Read how what is in the folder was made."""
    if not path.exists():
        return {}
    try:
        earlier = json.loads(path.read_bytes())
    except ValueError:
        earlier = None
    if not isinstance(earlier, dict):
        raise UserError(
            f"{path} is damaged: nobody knows how what is beside it was made; choose another folder with -o"
        )
    return earlier
