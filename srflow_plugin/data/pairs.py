"""HR and LR images under the same names, written so that a kill costs nothing: two LMDBs, or folders of PNG files.

The LMDBs have the layout of BasicSR's LmdbMaker, which itself refuses a folder that is there, and lists images in
meta_info.txt before they are in the LMDB.
"""

from __future__ import annotations

import glob
import json
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import lmdb

from srflow_plugin.errors import UserError
from srflow_plugin.files import complete_or_absent

MAP_SIZE = 2**40  # address space, not disk; as BasicSR
PNG_COMPRESSION = 1
SETTINGS_FILE = "prepared.json"


class Pair(NamedTuple):
    """One HR image and its LR, as PNG bytes."""

    key: str
    hr_png: bytes
    lr_png: bytes


class LmdbWriter:
    """Writes a pair of LMDBs under other names, which they lose when complete.

    Args:
        hr, lr: folders to make, ``*.lmdb``.
        settings: how images are made; a pair begun with others is begun anew.
        images: of each image its key and what tells it from another version, such as the file's size. Those begun
            that are not listed any more, or have changed, are forgotten.

    Attributes:
        complete: the pair is there, of these images and settings.

    Raises:
        UserError: the pair is there, made otherwise.
    """

    def __init__(self, hr: Path, lr: Path, settings: dict[str, Any], images: dict[str, Any]) -> None:
        settings = {**settings, "images": images}
        self.final = (hr, lr)
        self.unfinished = tuple(path.with_name(f"{path.stem}.unfinished.lmdb") for path in self.final)
        self.settings = settings
        self._rename()  # where a kill came between the two
        self.complete = hr.exists() and lr.exists() and _read_settings(hr / SETTINGS_FILE) == settings
        for path in self.final:
            if path.exists() and not self.complete:
                raise UserError(f"{path} exists, made from other images or otherwise; delete it or choose another name")
        if self.complete:
            return
        begun = _read_settings(self.unfinished[0] / SETTINGS_FILE) or {}
        begun_images = begun.pop("images", {})
        if {**begun, "images": images} != settings:
            self.discard()
        for path in self.unfinished:
            path.mkdir(parents=True, exist_ok=True)
        # Writes survive this process without sync; finish() makes them survive the machine.
        self.databases = [lmdb.open(str(path), map_size=MAP_SIZE, sync=False) for path in self.unfinished]
        self._forget({key for key, version in begun_images.items() if images.get(key) != version})
        (self.unfinished[0] / SETTINGS_FILE).write_text(json.dumps(settings))

    def has(self, key: str) -> bool:
        """Say whether an image has been put: LR comes last, and all of an image at once."""
        with self.databases[1].begin() as transaction:
            return any(transaction.get(name.encode()) is not None for name in (key, tile_key(key, 1)))

    def put(self, pairs: Iterable[Pair]) -> None:
        """Write all tiles of an image, or none."""
        pairs = list(pairs)
        for database, kind in zip(self.databases, ("hr_png", "lr_png"), strict=True):
            with database.begin(write=True) as transaction:
                for pair in pairs:
                    transaction.put(pair.key.encode("ascii"), getattr(pair, kind))

    def finish(self) -> int:
        """List the images, give both LMDBs their names; return the number of pairs."""
        for database, path in zip(self.databases, self.unfinished, strict=True):
            with database.begin() as transaction:
                lines = [_line(key.decode(), png) for key, png in transaction.cursor()]
            (path / "meta_info.txt").write_text("".join(lines))
            database.sync(True)
            database.close()
        self._rename()
        return len(lines)

    def count(self) -> int:
        """Count the pairs of a complete pair of LMDBs."""
        return len((self.final[0] / "meta_info.txt").read_text().splitlines())

    def discard(self) -> None:
        """Leave nothing behind."""
        for path in self.unfinished:
            shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        """Stop here; another writer goes on."""
        for database in getattr(self, "databases", []):
            database.close()

    def _forget(self, keys: set[str]) -> None:
        for database in reversed(self.databases):  # LR first: it says what is there
            with database.begin(write=True) as transaction:
                for name in [bytes(name) for name, _ in transaction.cursor()]:
                    if {name.decode(), name.decode().rpartition("_s")[0]} & keys:
                        transaction.delete(name)

    def _rename(self) -> None:
        moves = list(zip(self.unfinished, self.final, strict=True))
        if all((path / "meta_info.txt").exists() or final.exists() for path, final in moves):
            for path, final in moves:
                if path.exists() and not final.exists():
                    path.rename(final)


class FolderWriter:
    """Writes a pair of folders, ``KEY.png`` in each: a file is whole or not there. Otherwise as :class:`LmdbWriter`."""

    def __init__(self, hr: Path, lr: Path, settings: dict[str, Any], images: dict[str, Any]) -> None:
        self.folders = (hr, lr)
        self.settings = {**settings, "images": images}
        self.settings_file = hr.with_name(SETTINGS_FILE)  # BasicSR takes every file in the folders for an image
        begun = _read_settings(self.settings_file) or {}
        self.complete = begun == {**self.settings, "pairs": self.count()}
        if self.complete:
            return
        begun_images = begun.pop("images", {})
        begun.pop("pairs", None)
        if any(folder.exists() and any(folder.iterdir()) for folder in self.folders) and begun != settings:
            raise UserError(
                f"{hr} or {lr} holds something else, or images made otherwise; delete it or choose another name"
            )
        for folder in self.folders:
            folder.mkdir(parents=True, exist_ok=True)
        for key, version in begun_images.items():
            if images.get(key) != version:
                self._forget(key)
        self.settings_file.write_text(json.dumps(self.settings))

    def has(self, key: str) -> bool:
        return any((self.folders[1] / f"{name}.png").exists() for name in (key, tile_key(key, 1)))

    def put(self, pairs: Iterable[Pair]) -> None:
        for pair in reversed(list(pairs)):  # the first tile's LR image comes last: has() looks at it
            for folder, png in zip(self.folders, (pair.hr_png, pair.lr_png), strict=True):
                with complete_or_absent(folder / f"{pair.key}.png") as unfinished:
                    unfinished.write_bytes(png)

    def finish(self) -> int:
        self.settings_file.write_text(json.dumps({**self.settings, "pairs": self.count()}))
        return self.count()

    def count(self) -> int:
        return len(list(self.folders[1].glob("*.png")))

    def close(self) -> None:
        pass

    def _forget(self, key: str) -> None:
        for folder in reversed(self.folders):
            for path in (folder / f"{key}.png", *sorted(folder.glob(f"{glob.escape(key)}_s[0-9][0-9][0-9]*.png"))):
                path.unlink(missing_ok=True)


def open_writer(hr: Path, lr: Path, settings: dict[str, Any], images: dict[str, Any]) -> LmdbWriter | FolderWriter:
    """Open the writer for two ``*.lmdb``, or for two folders of files."""
    if (hr.suffix == ".lmdb") != (lr.suffix == ".lmdb"):
        raise UserError(f"{hr} and {lr}: both must end in .lmdb, or none")
    return (LmdbWriter if hr.suffix == ".lmdb" else FolderWriter)(hr, lr, settings, images)


def tile_key(key: str, number: int) -> str:
    """Key of an image's tile, counted from 1."""
    return f"{key}_s{number:03d}"


def _read_settings(path: Path) -> dict[str, Any] | None:
    try:
        settings: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    except ValueError:
        return None
    return settings


def _line(key: str, png: bytes) -> str:
    """Make an image's line of meta_info.txt; height and width stand in the PNG's header."""
    width, height = struct.unpack(">II", png[16:24])
    return f"{key}.png ({height},{width},3) {PNG_COMPRESSION}\n"
