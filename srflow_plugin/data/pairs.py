"""HR and LR images under the same names, written so that a kill costs nothing: two LMDBs, or folders of PNG files.

The LMDBs have the layout of BasicSR's LmdbMaker, which itself refuses a folder that is there, and lists images in
meta_info.txt before they are in the LMDB.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import lmdb

from srflow_plugin.errors import UserError
from srflow_plugin.files import complete_or_absent, rename_folder, sync, sync_all, write_whole
from srflow_plugin.images.files import is_image_file, is_whole_png

FIRST_SIZE, MOST_GROWTH = 2**24, 2**30  # bytes of a map: address space, on Windows of the file as well
LONGEST_KEY, LONGEST_NAME = 180, 220  # bytes: of files that are called so, too, and of what follows; the most is 255
PNG_COMPRESSION = 1
SETTINGS_FILE = "prepared.json"
HINT = "what is done is kept: start the command again when that is mended"

Result = TypeVar("Result")


class Pair(NamedTuple):
    """One HR image and its LR, as PNG bytes."""

    hr_png: bytes
    lr_png: bytes


def lmdb_key(name: str) -> str:
    """Spell a name as an LMDB key: percent-encoded, since BasicSR encodes keys as ASCII and cuts them at a dot.

    >>> lmdb_key("été 1.5")
    '%C3%A9t%C3%A9%201%2E5'
    """
    key = quote(os.fsencode(name), safe="").replace(".", "%2E")
    return key if len(key) <= LONGEST_KEY else f"{key[: LONGEST_KEY - 17]}~{_digest(key)}"


def file_key(name: str) -> str:
    """Spell a name as the beginning of a file's: as it is, unless nothing could follow it."""
    start = os.fsencode(name)
    if len(start) <= LONGEST_NAME:
        return name
    return f"{start[: LONGEST_NAME - 17].decode(errors='ignore')}~{_digest(name)}"


class GrowingLmdb:
    """An LMDB to be written, whose map grows with it: not every machine gives address space away.

    Raises:
        UserError: it cannot be opened or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.environment = lmdb.open(str(folder), map_size=FIRST_SIZE)
            sync(folder)  # LMDB puts contents on the disk, and not the names of its files
        except lmdb.Error as error:
            raise UserError(f"{folder} cannot be opened: {error}; {HINT}") from None

    def read(self, look: Callable[[lmdb.Transaction], Result]) -> Result:
        """Hand out what is there."""
        with self.environment.begin() as transaction:
            return look(transaction)

    def write(self, change: Callable[[lmdb.Transaction], None]) -> None:
        """Make all of a change, or nothing of it."""
        try:
            while not self._fits(change):
                size = self.environment.info()["map_size"]
                self.environment.set_mapsize(size + min(size, MOST_GROWTH))
        except lmdb.Error as error:
            raise UserError(f"{self.folder} cannot be written: {error}; {HINT}") from None

    def _fits(self, change: Callable[[lmdb.Transaction], None]) -> bool:
        try:
            with self.environment.begin(write=True) as transaction:
                change(transaction)
        except lmdb.MapFullError:
            return False
        return True

    def close(self) -> None:
        """Close it."""
        self.environment.close()


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
        self.tiled = settings.get("crop_size") is not None
        self.complete = hr.exists() and lr.exists() and _read_settings(hr / SETTINGS_FILE) == settings
        for path in self.final:
            if path.exists() and not self.complete:
                raise UserError(f"{path} exists, made from other images or otherwise; delete it or choose another name")
        self.waiting: dict[str, Sequence[Pair]] = {}  # for the next commit
        self.next_commit = 0.0
        if self.complete:
            for path in self.final:
                _check_list(path)
            return
        begun = _read_settings(self.unfinished[0] / SETTINGS_FILE) or {}
        begun_images = begun.pop("images", {})
        if {**begun, "images": images} != settings:
            self.discard()
        for path in self.unfinished:
            path.mkdir(parents=True, exist_ok=True)
            sync(path.parent)
        self.databases = [GrowingLmdb(path) for path in self.unfinished]
        self._forget({key for key, version in begun_images.items() if images.get(key) != version})
        write_whole(self.unfinished[0] / SETTINGS_FILE, json.dumps(settings))

    def has(self, key: str) -> bool:
        """Say whether an image has been put: LR comes last, and all of an image at once."""
        first = _names(key, 1, self.tiled)[0].encode()
        return key in self.waiting or self.databases[1].read(lambda transaction: transaction.get(first) is not None)

    def put(self, key: str, pairs: Sequence[Pair]) -> None:
        """Write all tiles of an image, or none.

        Images wait for others, to be put on the disk together: that takes a tenth of the time at most.
        """
        self.waiting[key] = pairs
        start = time.monotonic()
        if start >= self.next_commit:
            self._commit()
            end = time.monotonic()
            self.next_commit = end + 9 * (end - start)

    def _commit(self) -> None:
        """Write the images that wait; they wait no more, even if they cannot be written."""
        images, self.waiting = self.waiting, {}
        for number, database in enumerate(self.databases):

            def put_all(transaction: lmdb.Transaction, number: int = number) -> None:
                for key, pairs in images.items():
                    for name, pair in zip(_names(key, len(pairs), self.tiled), pairs, strict=True):
                        transaction.put(name.encode(), pair[number])

            database.write(put_all)

    def finish(self) -> int:
        """List the images, give both LMDBs their names; return the number of pairs."""
        self._commit()
        for database, path in zip(self.databases, self.unfinished, strict=True):
            lines = database.read(_lines)
            write_whole(path / "meta_info.txt", "".join(lines))
            database.close()
        self._rename()
        return len(lines)

    def count(self) -> int:
        """Count the pairs of a complete pair of LMDBs."""
        return len((self.final[0] / "meta_info.txt").read_text(encoding="utf-8").splitlines())

    def discard(self) -> None:
        """Leave nothing behind."""
        for path in self.unfinished:
            shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        """Stop here; another writer goes on."""
        if self.waiting:
            self._commit()
        for database in getattr(self, "databases", []):
            database.close()

    def _forget(self, keys: set[str]) -> None:
        def forget(transaction: lmdb.Transaction) -> None:
            for name in [bytes(name) for name, _ in transaction.cursor()]:
                if _key_of(name.decode(), self.tiled) in keys:
                    transaction.delete(name)

        for database in reversed(self.databases):  # LR first: it says what is there
            database.write(forget)

    def _rename(self) -> None:
        moves = list(zip(self.unfinished, self.final, strict=True))
        if all((path / "meta_info.txt").exists() or final.exists() for path, final in moves):
            for path, final in moves:
                if path.exists() and not final.exists():
                    rename_folder(path, final)


class FolderWriter:
    """Writes a pair of folders, ``KEY.png`` in each: a file is whole or not there. Otherwise as :class:`LmdbWriter`."""

    def __init__(self, hr: Path, lr: Path, settings: dict[str, Any], images: dict[str, Any]) -> None:
        self.folders = (hr, lr)
        self.settings = {**settings, "images": images}
        self.tiled = settings.get("crop_size") is not None
        self.settings_file = hr.with_name(SETTINGS_FILE)  # BasicSR takes every file in the folders for an image
        begun = _read_settings(self.settings_file) or {}
        self.complete = begun == {**self.settings, "pairs": self.count()}
        if self.complete:
            return
        begun_images = begun.pop("images", {})
        begun.pop("pairs", None)
        has_images = any(is_image_file(path) for path in (*hr.glob("*"), *lr.glob("*")))
        if has_images and begun != settings:
            raise UserError(
                f"{hr} or {lr} holds something else, or images made otherwise; delete it or choose another name"
            )
        for folder in self.folders:
            folder.mkdir(parents=True, exist_ok=True)
        changed = {key for key, version in begun_images.items() if images.get(key) != version}
        self._forget(changed | self._damaged())
        write_whole(self.settings_file, json.dumps(self.settings))

    def has(self, key: str) -> bool:
        return (self.folders[1] / f"{_names(key, 1, self.tiled)[0]}.png").exists()

    def put(self, key: str, pairs: Sequence[Pair]) -> None:
        names = _names(key, len(pairs), self.tiled)
        for name, pair in reversed([*zip(names, pairs, strict=True)]):  # has() looks at the first one's LR image
            for folder, png in zip(self.folders, pair, strict=True):
                try:
                    with complete_or_absent(folder / f"{name}.png", is_one_of_many=True) as unfinished:
                        unfinished.write_bytes(png)
                except OSError as error:
                    raise UserError(f"{folder} cannot be written: {error.strerror}; {HINT}") from None

    def finish(self) -> int:
        sync_all()
        write_whole(self.settings_file, json.dumps({**self.settings, "pairs": self.count()}))
        return self.count()

    def count(self) -> int:
        return sum(map(is_image_file, self.folders[1].iterdir())) if self.folders[1].exists() else 0

    def close(self) -> None:
        sync_all()

    def _damaged(self) -> set[str]:
        """Find images of which a power cut has left less than all."""
        files = [path for folder in self.folders for path in folder.iterdir() if is_image_file(path)]
        return {_key_of(path.stem, self.tiled) for path in files if not is_whole_png(path.read_bytes())}

    def _forget(self, keys: set[str]) -> None:
        for folder in reversed(self.folders):
            for path in filter(is_image_file, [*folder.iterdir()]):
                if _key_of(path.stem, self.tiled) in keys:
                    path.unlink()


def open_writer(hr: Path, lr: Path, settings: dict[str, Any], images: dict[str, Any]) -> LmdbWriter | FolderWriter:
    """Open the writer for two ``*.lmdb``, or for two folders of files."""
    if (hr.suffix == ".lmdb") != (lr.suffix == ".lmdb"):
        raise UserError(f"{hr} and {lr}: both must end in .lmdb, or none")
    return (LmdbWriter if hr.suffix == ".lmdb" else FolderWriter)(hr, lr, settings, images)


def key_for(hr: Path) -> Callable[[str], str]:
    """Choose how the writer for such a path spells names."""
    return lmdb_key if hr.suffix == ".lmdb" else file_key


def tile_key(key: str, number: int) -> str:
    """Key of an image's tile, counted from 1."""
    return f"{key}_s{number:03d}"


def _names(key: str, count: int, tiled: bool) -> list[str]:
    """Keys of what is stored of an image: of its tiles, or its own."""
    return [tile_key(key, number) for number in range(1, count + 1)] if tiled else [key] * min(count, 1)


def _key_of(name: str, tiled: bool) -> str:
    """Key of the image that something stored is of."""
    return name.rpartition("_s")[0] if tiled else name


def _digest(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def _read_settings(path: Path) -> dict[str, Any] | None:
    """Read how images were made; None where nobody says, or nothing that makes sense."""
    try:
        settings = json.loads(path.read_bytes()) if path.exists() else None
    except ValueError:
        return None
    makes_sense = isinstance(settings, dict) and isinstance(settings.get("images", {}), dict)
    return settings if makes_sense else None


def _check_list(folder: Path) -> None:
    """Refuse an LMDB whose list and contents differ, as after a damage, or when two wrote to it at once."""
    try:
        listed = (folder / "meta_info.txt").read_bytes().splitlines()
        with lmdb.open(str(folder), readonly=True, lock=False) as database, database.begin() as transaction:
            names = [bytes(name) for name in transaction.cursor().iternext(values=False)]
        is_same = [line.partition(b".png ")[0] for line in listed] == names
    except (OSError, lmdb.Error):
        is_same = False
    if not is_same:
        raise UserError(
            f"{folder} is damaged: it does not hold what its meta_info.txt lists; delete it and its partner"
        )


def _lines(transaction: lmdb.Transaction) -> list[str]:
    """Make the lines of meta_info.txt, one for each image; height and width stand in the PNG's header."""
    lines = []
    for key, png in transaction.cursor():
        width, height = struct.unpack(">II", bytes(png[16:24]))
        lines.append(f"{bytes(key).decode()}.png ({height},{width},3) {PNG_COMPRESSION}\n")
    return lines
