"""Pairs written as LMDBs or folders: begun, gone on with, complete, made otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lmdb
import pytest

from srflow_plugin.data.pairs import SETTINGS_FILE, FolderWriter, LmdbWriter, Pair, open_writer, tile_key
from srflow_plugin.errors import UserError
from tests.helpers import noise_png

SETTINGS = {"scale": 4}
NAMES = {"lmdb": ("HR.lmdb", "LR.lmdb"), "png": ("HR", "LR")}


def open_pair(folder: Path, kind: str, versions: dict[str, Any], **settings: Any) -> LmdbWriter | FolderWriter:
    hr, lr = (folder / name for name in NAMES[kind])
    return open_writer(hr, lr, {**SETTINGS, **settings}, versions)


def pairs_of(key: str) -> list[Pair]:
    """Make an image's two tiles."""
    return [Pair(tile_key(key, number), noise_png(number), noise_png(2 * number)) for number in (1, 2)]


@pytest.mark.parametrize("kind", NAMES)
def test_what_is_begun_is_gone_on_with(tmp_path: Path, kind: str) -> None:
    versions = {"a": 1, "b": 2}
    writer = open_pair(tmp_path, kind, versions)
    writer.put(pairs_of("a"))
    writer.close()
    writer = open_pair(tmp_path, kind, versions)
    assert (writer.has("a"), writer.has("b"), writer.complete) == (True, False, False)
    writer.put(pairs_of("b"))
    assert writer.finish() == 4
    writer.close()
    writer = open_pair(tmp_path, kind, versions)
    assert writer.complete and writer.count() == 4
    assert not list(tmp_path.rglob("*unfinished*"))


@pytest.mark.parametrize("kind", NAMES)
def test_images_that_have_changed_are_forgotten(tmp_path: Path, kind: str) -> None:
    writer = open_pair(tmp_path, kind, {"a": 1, "b": 2, "c": 3, "b_s1": 4})
    for key in ("a", "b", "c", "b_s1"):
        writer.put(pairs_of(key))
    writer.close()
    writer = open_pair(tmp_path, kind, {"a": 1, "b": 9, "b_s1": 4})  # another version, and one left out
    assert [key for key in ("a", "b", "c", "b_s1") if writer.has(key)] == ["a", "b_s1"]
    writer.put(pairs_of("b"))
    assert writer.finish() == 6
    writer.close()


@pytest.mark.parametrize("kind", NAMES)
def test_a_pair_made_otherwise_is_left_alone(tmp_path: Path, kind: str) -> None:
    writer = open_pair(tmp_path, kind, {"a": 1})
    writer.put(pairs_of("a"))
    writer.finish()
    writer.close()
    with pytest.raises(UserError, match=r"made (from other images or )?otherwise; delete it or choose another name"):
        open_pair(tmp_path, kind, {"a": 1}, scale=2)
    assert open_pair(tmp_path, kind, {"a": 1}).complete


def test_a_pair_begun_otherwise_is_begun_anew(tmp_path: Path) -> None:
    writer = open_pair(tmp_path, "lmdb", {"a": 1})
    writer.put(pairs_of("a"))
    writer.close()
    writer = open_pair(tmp_path, "lmdb", {"a": 1}, scale=2)
    assert not writer.has("a")
    writer.close()


@pytest.mark.parametrize("done", [0, 1])
def test_a_kill_between_the_two_names_costs_nothing(tmp_path: Path, done: int) -> None:
    writer = open_pair(tmp_path, "lmdb", {"a": 1})
    writer.put(pairs_of("a"))
    writer.finish()
    final = [tmp_path / name for name in NAMES["lmdb"]]
    for path in final[done:]:
        path.rename(path.with_name(f"{path.stem}.unfinished.lmdb"))
    assert open_pair(tmp_path, "lmdb", {"a": 1}).complete and all(path.exists() for path in final)


def test_a_file_of_settings_that_is_not_whole_is_as_none(tmp_path: Path) -> None:
    writer = open_pair(tmp_path, "png", {"a": 1})
    writer.close()
    (tmp_path / SETTINGS_FILE).write_text('{"scale": 4, "ima')
    assert not open_pair(tmp_path, "png", {"a": 1}).complete


def test_both_are_of_one_kind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"both must end in \.lmdb, or none"):
        open_writer(tmp_path / "HR.lmdb", tmp_path / "LR", SETTINGS, {})


def test_the_list_of_images_is_basicsrs(tmp_path: Path) -> None:
    writer = open_pair(tmp_path, "lmdb", {"a": 1})
    writer.put(pairs_of("a"))
    writer.finish()
    assert (tmp_path / "HR.lmdb" / "meta_info.txt").read_text() == ("a_s001.png (17,22,3) 1\na_s002.png (17,22,3) 1\n")
    with lmdb.open(str(tmp_path / "LR.lmdb"), readonly=True) as database, database.begin() as transaction:
        assert dict(transaction.cursor()) == {b"a_s001": noise_png(2), b"a_s002": noise_png(4)}
