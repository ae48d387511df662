"""Folder of the page's pictures: uploads and answers. It is bounded, and gone with its process. Needs no Gradio."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from PIL import EpsImagePlugin, Image

from srflow_plugin.errors import UserError
from srflow_plugin.images.files import FORMATS, picture_size
from srflow_plugin.locks import LockFile

PREFIX = "srflow_demo_"
LOCK = "lock"
KEPT = 3600.0  # seconds that pictures are kept
LARGEST = 4 * 2**30  # bytes of all pictures
LEFT_FREE = 2**28  # bytes of the disk
FULL = "this page holds as many pictures as it may; older ones are deleted after an hour: try again later"


@contextmanager
def pictures_folder() -> Iterator[Path]:
    """Make a folder for pictures, which none but this user can read; at the end of the block it is gone.

    Folders of processes that were killed go now.
    """
    _remove_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    try:
        with LockFile(folder / LOCK) as lock:
            lock.claim()
            pictures = folder / "pictures"
            pictures.mkdir()
            yield pictures
    finally:
        for _ in range(10):  # a call that is not ended yet may write meanwhile
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break


def _remove_leftovers() -> None:
    """Delete folders of this user whose process has ended without: their locks can be had."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError, UserError):
            is_ours = not hasattr(os, "getuid") or folder.lstat().st_uid == os.getuid()
            if folder.is_symlink() or not is_ours or not (folder / LOCK).is_file():
                continue
            with LockFile(folder / LOCK) as lock:
                is_left = lock.claim()
            if is_left:
                shutil.rmtree(folder, ignore_errors=True)


def new_folder(parent: Path) -> Path:
    """Make a folder whose name nobody can guess.

    Raises:
        UserError: there is no room for further pictures.
    """
    check_room(parent)
    folder = parent / secrets.token_hex(16)
    folder.mkdir(mode=0o700)
    return folder


def check_room(parent: Path) -> None:
    """Refuse further pictures where there are too many, or the disk is almost full."""
    if size_of(parent) > LARGEST or shutil.disk_usage(parent).free < LEFT_FREE:
        raise UserError(FULL)


def size_of(folder: Path) -> int:
    """Sum up the bytes of all files below a folder."""
    total = 0
    for parent, _, names in os.walk(folder):  # passes over folders that are deleted meanwhile
        for name in names:
            with suppress(OSError):
                total += (Path(parent) / name).lstat().st_size
    return total


def sweep(parent: Path, but: Collection[Path] = ()) -> None:
    """Delete whatever has not changed for an hour."""
    for path in parent.iterdir():
        with suppress(OSError):
            if path not in but and time.time() - path.stat().st_mtime > KEPT:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def without_folder(text: str, folder: Path) -> str:
    """Leave out of a text where pictures lie: visitors see the names of files only."""
    return re.sub(rf"{re.escape(str(folder))}[^\s'\"]*[/\\]", "", text)


def only_pixels() -> None:
    """Let Pillow read images of FORMATS only, in this process: it has other programs draw some others (Ghostscript)."""
    Image.init()
    for kind in set(Image.ID) - {*FORMATS, "MPO"}:
        Image.ID.remove(kind)
        del Image.OPEN[kind]
    EpsImagePlugin.gs_binary = False


def check_upload(path: Path, max_pixels: int) -> None:
    """Refuse a file that is no image of FORMATS, or has too many pixels, by its header."""
    try:
        with path.open("rb") as file:
            width, height = picture_size(file, path.name)
    except UserError:
        raise UserError(f"{path.name} is not an image that this page reads ({', '.join(FORMATS)})") from None
    if width * height > max_pixels:
        raise UserError(f"{path.name} has {width:,} x {height:,} pixels, more than {max_pixels:,}; cut it")
