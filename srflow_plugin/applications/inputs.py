"""Images that a command's arguments mean: files, folders, folders in them, patterns. Needs no torch."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from srflow_plugin.errors import UserError, counted
from srflow_plugin.images.files import by_ending, readable_suffixes
from srflow_plugin.progress import tell


class Found(NamedTuple):
    """An image, and the folder that it lies in, below the one that was named."""

    path: Path
    below: Path = Path()


def find_inputs(names: Sequence[str], recursive: bool = False) -> list[Found]:
    """List the images that names mean, in order, each once; say what is left out.

    Raises:
        UserError: a name means nothing.
    """
    found: dict[Path, Found] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            images = _images_of(path, recursive)
        elif path.exists():
            images = [Found(path)]
        elif glob.has_magic(name):
            images = _matches(name)
        else:
            raise UserError(f"{path} does not exist; correct the path")
        for image in images:
            found.setdefault(image.path, image)
    return list(found.values())


def _matches(pattern: str) -> list[Found]:
    matches = glob.glob(pattern, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute patterns)
    files = sorted(path for path in map(Path, matches) if path.is_file())
    if not files:
        raise UserError(f"no file matches {pattern}")
    return [Found(path) for path in files]


def _images_of(folder: Path, recursive: bool) -> list[Found]:
    """List the images of a folder, and say what else is in it."""
    suffixes = readable_suffixes()
    images: list[Found] = []
    left_out: list[Path] = []
    folders = 0
    for path in _walk(folder, recursive):
        if path.is_dir():
            folders += 1
        elif path.suffix.lower() in suffixes:
            images.append(Found(path, path.parent.relative_to(folder)))
        else:
            left_out.append(path)
    hint = f"; it has {counted(folders, 'folder')}, whose images --recursive takes" if folders else ""
    if not images:
        raise UserError(f"{folder} has no images{hint}")
    if left_out:
        tell(f"{folder}: {counted(len(left_out), 'file')} left out, no images ({by_ending(left_out)})")
    if folders:
        tell(f"{folder}: {counted(folders, 'folder')} left out; --recursive takes images there, too")
    return images


def _walk(folder: Path, recursive: bool, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Go through a folder in order of names, but for what is hidden, as ._a.png of macOS is.

    A link to a folder that it lies in, ``above``, is not followed.
    """
    above = (*above, os.path.realpath(folder))
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from None
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if recursive and entry.is_dir():
            if os.path.realpath(entry.path) not in above:
                yield from _walk(Path(entry.path), recursive, above)
        else:
            yield Path(entry.path)
