"""Pairs of files for BasicSR's data sets, found in linear time, and lists of files read as people write them."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from basicsr.utils import scandir
from PIL import Image

from srflow_plugin.errors import UserError
from srflow_plugin.files import check_is_file
from srflow_plugin.images.files import PNG_START, check_bytes, picture_size, read_bytes
from srflow_plugin.progress import with_progress

LISTS = ("meta_info_file", "meta_info")  # keys of data sets that name a list of images
SIZE = re.compile(r"\s+\(?\d+\s*,\s*\d+\s*(,\s*\d+\s*)?\)?(\s+\d+)?$")  # what may follow a name in a list
READERS = 8  # threads, which mostly wait for the disk
OF_OPENCV = {".jfif", ".exr", ".hdr", ".pic", ".pxm", ".ras", ".sr"}  # image files that Pillow may not know
LONGEST_LIST = 2**28  # bytes: some millions of names
MANY = 2000  # files from which on a bar shows how far it is
Paths = list[dict[str, str]]


def at_home(path: str | Path) -> Path:
    """Put the folder of a user in place of ``~`` and ``~name``."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{path}: this system knows no such user; correct the path") from None


@contextmanager
def paired_quickly(kind: type) -> Iterator[None]:
    """Let a data set that finds files by BasicSR's functions do so by the ones of this module, in the block.

    BasicSR's look every name up in a list: 160,000 pairs take minutes; and they take every file for an image.
    """
    module = vars(sys.modules[kind.__module__])
    ours: dict[str, Callable[..., Any]] = {
        "paired_paths_from_folder": pairs_of_folders,
        "paired_paths_from_meta_info_file": pairs_of_list,
        "scandir": image_names,
    }
    before = {name: module[name] for name in ours if name in module}
    module.update({name: ours[name] for name in before})
    try:
        yield
    finally:
        module.update(before)


def image_names(
    folder: str, suffix: str | tuple[str, ...] | None = None, recursive: bool = False, full_path: bool = False
) -> Iterator[str]:
    """List the images of a folder, as BasicSR's ``scandir`` lists files: none of a system (``Thumbs.db``), no text."""
    known = Image.registered_extensions().keys() | OF_OPENCV
    names: Iterator[str] = scandir(folder, suffix, recursive, full_path)
    return (name for name in names if PurePath(name).suffix.lower() in known)


def pairs_of_folders(folders: Sequence[str], keys: Sequence[str], filename_tmpl: str) -> Paths:
    """Pair the images of two folders by name.

    Args:
        folders: of the LR and of the HR images.
        keys: of the paths, without "_path".
        filename_tmpl: makes of an HR image's name the LR image's, both without their ending.

    Raises:
        UserError: an image has no partner; with the template that would fit.
    """
    inputs, gts = (sorted(image_names(folder)) for folder in folders)
    known = set(inputs)
    for name in gts:
        if _input_name(name, filename_tmpl) not in known:
            hint = _fitting_template(name, inputs)
            raise UserError(
                f"{folders[1]}/{name} has no {folders[0]}/{_input_name(name, filename_tmpl)}"
                + (f"; set filename_tmpl: '{hint}'" if hint else "; give both images the same name")
            )
    if len(inputs) != len(gts):
        extra = next(iter(known - {_input_name(name, filename_tmpl) for name in gts}))
        raise UserError(
            f"{folders[0]} has {len(inputs)} images and {folders[1]} {len(gts)}: {extra} has no partner; remove it"
        )
    return _pairs(gts, folders, keys, filename_tmpl)


def pairs_of_list(folders: Sequence[str], keys: Sequence[str], meta_info_file: str, filename_tmpl: str) -> Paths:
    """Pair the images that a list names; arguments as of :func:`pairs_of_folders`."""
    return _pairs(names_of_list(Path(meta_info_file)), folders, keys, filename_tmpl)


def names_of_list(file: Path) -> list[str]:
    """Read the names of a list: one in a line, with or without the size behind it."""
    return [SIZE.sub("", line) for line in lines_of_list(file)]


def hr_files(opt: dict[str, Any]) -> list[Path]:
    """List the image files of a data set of HR images alone: those of its list, or of its folder."""
    folder, listed = Path(opt["dataroot_gt"]), opt.get("meta_info")
    names = names_of_list(Path(listed)) if listed else sorted(image_names(str(folder)))
    return [folder / name for name in names]


def lines_of_list(file: Path) -> list[str]:
    """Read the lines of a list that are not empty."""
    file = at_home(file)
    try:
        if file.exists():
            check_is_file(file)
            if file.stat().st_size > LONGEST_LIST:
                raise UserError(f"{file} is no list of images: it has more than {LONGEST_LIST:,} bytes")
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"{file} cannot be read: {reason}; correct the path, or leave it out") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{file} names no images; leave it out, or write one name in a line")
    return lines


def image_sizes(files: Sequence[Path]) -> list[tuple[int, int] | None]:
    """Read height and width of image files from their first bytes; None where that cannot be done."""
    with ThreadPoolExecutor(READERS) as readers:
        sizes = readers.map(_image_size, files)
        return [next(sizes) for _ in with_progress(files, "image", disable=len(files) < MANY)]


def _image_size(file: Path) -> tuple[int, int] | None:
    try:
        check_bytes(file)
        start = read_bytes(file, 24)
        if start.startswith(PNG_START) and len(start) == 24:
            width, height = struct.unpack(">II", start[16:])
        else:
            width, height = picture_size(file, str(file))
    except UserError:
        return None  # whoever reads it says what is wrong with it
    return height, width


def _pairs(gts: Sequence[str], folders: Sequence[str], keys: Sequence[str], template: str) -> Paths:
    return [
        {
            f"{keys[0]}_path": str(Path(folders[0], _input_name(name, template))),
            f"{keys[1]}_path": str(Path(folders[1], name)),
        }
        for name in gts
    ]


def _input_name(name: str, template: str) -> str:
    path = PurePath(name)
    return f"{template.format(path.stem)}{path.suffix}"


def _fitting_template(name: str, inputs: Sequence[str]) -> str:
    """Find the template that makes the HR image's name that of an LR image."""
    stem = PurePath(name).stem
    longer = (PurePath(other).stem for other in inputs if stem in PurePath(other).stem)
    fitting = sorted(longer, key=len)[:1]
    return fitting[0].replace(stem, "{}", 1) if fitting and fitting[0] != stem else ""
