"""Two LMDBs, HR and LR with the same keys, in the layout of BasicSR's LmdbMaker, written so that a kill costs nothing.

BasicSR's own maker refuses a folder that is there, and lists images in meta_info.txt before they are in the LMDB.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import lmdb

from srflow_plugin.errors import UserError

MAP_SIZE = 2**40  # address space, not disk; as BasicSR
PNG_COMPRESSION = 1


class Pair(NamedTuple):
    """One HR image and its LR, as PNG bytes."""

    key: str
    hr_png: bytes
    lr_png: bytes


class PairWriter:
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
        self.complete = hr.exists() and lr.exists() and _settings(hr) == settings
        for path in self.final:
            if path.exists() and not self.complete:
                raise UserError(f"{path} exists, made from other images or otherwise; delete it or choose another name")
        if self.complete:
            return
        begun = _settings(self.unfinished[0]) or {}
        begun_images = begun.pop("images", {})
        if {**begun, "images": images} != settings:
            self.discard()
        for path in self.unfinished:
            path.mkdir(parents=True, exist_ok=True)
        # What is written survives this process without sync; finish() makes it survive the machine.
        self.databases = [lmdb.open(str(path), map_size=MAP_SIZE, sync=False) for path in self.unfinished]
        self._forget({key for key, version in begun_images.items() if images.get(key) != version})
        _settings_file(self.unfinished[0]).write_text(json.dumps(settings))

    def has(self, key: str) -> bool:
        """Whether an image has been put: LR comes last, and all of an image at once."""
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
        """List the images, give both LMDBs their names; how many pairs there are."""
        for database, path in zip(self.databases, self.unfinished, strict=True):
            with database.begin() as transaction:
                lines = [_line(key.decode(), png) for key, png in transaction.cursor()]
            (path / "meta_info.txt").write_text("".join(lines))
            database.sync(True)
            database.close()
        self._rename()
        return len(lines)

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


def tile_key(key: str, number: int) -> str:
    """Key of an image's tile, counted from 1."""
    return f"{key}_s{number:03d}"


def _settings_file(hr: Path) -> Path:
    return hr / "prepared.json"


def _settings(hr: Path) -> dict[str, Any] | None:
    path = _settings_file(hr)
    try:
        settings: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    except ValueError:
        return None
    return settings


def _line(key: str, png: bytes) -> str:
    """An image's line in meta_info.txt; height and width stand in the PNG's header."""
    width, height = struct.unpack(">II", png[16:24])
    return f"{key}.png ({height},{width},3) {PNG_COMPRESSION}\n"
