"""Pairs written as LMDBs or folders: begun, gone on with, complete, made otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lmdb
import pytest

from srflow_plugin.data import pairs
from srflow_plugin.data.pairs import SETTINGS_FILE, FolderWriter, LmdbWriter, Pair, file_key, lmdb_key, open_writer
from srflow_plugin.errors import UserError
from tests.helpers import litter, noise_png

SETTINGS = {"scale": 4, "crop_size": 16}
NAMES = {"lmdb": ("HR.lmdb", "LR.lmdb"), "png": ("HR", "LR")}


def open_pair(folder: Path, kind: str, versions: dict[str, Any], **settings: Any) -> LmdbWriter | FolderWriter:
    hr, lr = (folder / name for name in NAMES[kind])
    return open_writer(hr, lr, {**SETTINGS, **settings}, versions)


def two_tiles() -> list[Pair]:
    """Make the tiles of an image."""
    return [Pair(noise_png(number), noise_png(2 * number)) for number in (1, 2)]


@pytest.mark.parametrize("kind", NAMES)
def test_what_is_begun_is_gone_on_with(tmp_path: Path, kind: str) -> None:
    versions = {"a": 1, "b": 2}
    writer = open_pair(tmp_path, kind, versions)
    writer.put("a", two_tiles())
    writer.close()
    writer = open_pair(tmp_path, kind, versions)
    assert (writer.has("a"), writer.has("b"), writer.complete) == (True, False, False)
    writer.put("b", two_tiles())
    assert writer.finish() == 4
    writer.close()
    writer = open_pair(tmp_path, kind, versions)
    assert writer.complete and writer.count() == 4
    if kind == "png":
        litter(tmp_path / "LR")  # as a system does that shows it
        assert open_pair(tmp_path, kind, versions).complete
    assert not list(tmp_path.rglob("*unfinished*"))


@pytest.mark.parametrize("kind", NAMES)
def test_images_that_have_changed_are_forgotten(tmp_path: Path, kind: str) -> None:
    writer = open_pair(tmp_path, kind, {"a": 1, "b": 2, "c": 3, "b_s1": 4})
    for key in ("a", "b", "c", "b_s1"):
        writer.put(key, two_tiles())
    writer.close()
    writer = open_pair(tmp_path, kind, {"a": 1, "b": 9, "b_s1": 4})  # another version, and one left out
    assert [key for key in ("a", "b", "c", "b_s1") if writer.has(key)] == ["a", "b_s1"]
    writer.put("b", two_tiles())
    assert writer.finish() == 6
    writer.close()


@pytest.mark.parametrize("kind", NAMES)
def test_a_pair_made_otherwise_is_left_alone(tmp_path: Path, kind: str) -> None:
    writer = open_pair(tmp_path, kind, {"a": 1})
    writer.put("a", two_tiles())
    writer.finish()
    writer.close()
    with pytest.raises(UserError, match=r"made (from other images or )?otherwise; delete it or choose another name"):
        open_pair(tmp_path, kind, {"a": 1}, scale=2)
    assert open_pair(tmp_path, kind, {"a": 1}).complete


def test_a_pair_begun_otherwise_is_begun_anew(tmp_path: Path) -> None:
    writer = open_pair(tmp_path, "lmdb", {"a": 1})
    writer.put("a", two_tiles())
    writer.close()
    writer = open_pair(tmp_path, "lmdb", {"a": 1}, scale=2)
    assert not writer.has("a")
    writer.close()


@pytest.mark.parametrize("done", [0, 1])
def test_a_kill_between_the_two_names_costs_nothing(tmp_path: Path, done: int) -> None:
    writer = open_pair(tmp_path, "lmdb", {"a": 1})
    writer.put("a", two_tiles())
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
    writer.put("a", two_tiles())
    writer.finish()
    assert (tmp_path / "HR.lmdb" / "meta_info.txt").read_text() == ("a_s001.png (17,22,3) 1\na_s002.png (17,22,3) 1\n")
    with lmdb.open(str(tmp_path / "LR.lmdb"), readonly=True) as database, database.begin() as transaction:
        assert dict(transaction.cursor()) == {b"a_s001": noise_png(2), b"a_s002": noise_png(4)}


@pytest.mark.parametrize("kind", NAMES)
def test_an_image_is_not_taken_for_a_tile_of_another(tmp_path: Path, kind: str) -> None:
    whole = [Pair(noise_png(1), noise_png(2))]
    writer = open_pair(tmp_path, kind, {"a_s001": 1}, crop_size=None)
    writer.put("a_s001", whole)
    writer.close()
    writer = open_pair(tmp_path, kind, {"a": 1, "a_s001": 1}, crop_size=None)
    assert (writer.has("a"), writer.has("a_s001")) == (False, True)
    writer.put("a", whole)
    writer.close()
    writer = open_pair(tmp_path, kind, {"a_s001": 1, "a": 2}, crop_size=None)  # another version
    assert (writer.has("a"), writer.has("a_s001")) == (False, True)
    writer.close()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("0001", "0001"),
        ("a-b_c~", "a-b_c~"),
        ("\u00fc", "%C3%BC"),
        ("a b", "a%20b"),
        ("a.b", "a%2Eb"),
        ("100%", "100%25"),
        ("%C3%BC", "%25C3%25BC"),
        ("a,b\n(1,2,3) 1", "a%2Cb%0A%281%2C2%2C3%29%201"),
        ("\udcff", "%FF"),  # a byte that is no UTF-8
        ("a\x01\tb", "a%01%09b"),
        ("\U0001f600/", "%F0%9F%98%80%2F"),
    ],
)  # fmt: skip
def test_keys_are_what_basicsr_reads(name: str, key: str) -> None:
    assert lmdb_key(name) == key and key.isascii() and not set(key) & set(". ,\n/")
    assert file_key(name) == name


def test_long_names_are_cut_and_differ() -> None:
    for spell, longest in ((lmdb_key, 200), (file_key, 255 - len("_s99999.png.unfinished"))):
        keys = {spell(name) for name in ("\u00fc" * 120 + end for end in ("", "a", "b"))}
        keys |= {spell("\u4e16" * 83 + end) for end in ("", "a")}
        assert len(keys) == 5 and max(len(key.encode()) for key in keys) <= longest


def test_a_map_grows_with_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "FIRST_SIZE", 2**16)
    monkeypatch.setattr(pairs, "MOST_GROWTH", 2**18)
    versions = {str(number): number for number in range(60)}
    large = noise_png(0) * 40  # longer than the map is at first, many times over
    for number in range(60):
        if number % 20 == 0:  # gone on with by another process, so to speak
            writer = open_pair(tmp_path, "lmdb", versions)
        writer.put(str(number), [Pair(large, noise_png(number))] * 2)
        if number % 20 == 19 and number < 59:
            writer.close()
    assert all(writer.has(key) for key in versions)
    assert writer.finish() == 120
    assert 60 * 2 * len(large) < (tmp_path / "HR.lmdb" / "data.mdb").stat().st_size < 2.5 * 60 * 2 * len(large)
    with lmdb.open(str(tmp_path / "HR.lmdb"), readonly=True) as database, database.begin() as transaction:
        assert transaction.get(b"59_s002") == large


def test_a_change_that_does_not_fit_at_once_is_made_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "FIRST_SIZE", 2**16)
    writer = open_pair(tmp_path, "lmdb", {"a": 1})
    writer.put("a", [Pair(bytes(2**20), b"")] * 5)
    assert writer.has("a")
    writer.close()


@pytest.mark.parametrize("kind", NAMES)
def test_what_cannot_be_written_is_said(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_pair(tmp_path, kind, {"a": 1})

    def fail(*arguments: Any) -> None:
        raise lmdb.DiskError("No space left on device") if kind == "lmdb" else OSError(28, "No space left on device")

    monkeypatch.setattr(pairs.GrowingLmdb, "_fits", fail)
    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(UserError, match=r"HR.* cannot be written: No space left on device; what is done is kept"):
        writer.put("a", two_tiles())
    writer.close()


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("left", ["nothing", "zeros", "half"])
def test_what_a_power_cut_has_left_of_a_file_is_made_anew(half: int, left: str, tmp_path: Path) -> None:
    versions = {"a": 1, "b": 2}
    writer = open_pair(tmp_path, "png", versions)
    for key in versions:
        writer.put(key, two_tiles())
    writer.close()
    path = tmp_path / NAMES["png"][half] / "a_s002.png"
    png = path.read_bytes()
    path.write_bytes(
        {"nothing": b"", "zeros": bytes(len(png)), "half": png[: len(png) // 2].ljust(len(png), b"\0")}[left]
    )
    writer = open_pair(tmp_path, "png", versions)
    assert [writer.has(key) for key in versions] == [False, True]
    assert not list(tmp_path.rglob("a_s*.png"))


def test_images_wait_for_others_and_none_is_lost(tmp_path: Path) -> None:
    writer = open_pair(tmp_path, "lmdb", {"a": 1, "b": 2, "c": 3})
    assert isinstance(writer, LmdbWriter)
    for key in "ab":
        writer.put(key, two_tiles())
        assert writer.has(key)
        writer.next_commit = float("inf")
    assert [*writer.waiting] == ["b"]
    writer.close()
    writer = open_pair(tmp_path, "lmdb", {"a": 1, "b": 2, "c": 3})
    assert [writer.has(key) for key in "abc"] == [True, True, False]


def complete_pair(folder: Path, kind: str = "lmdb") -> dict[str, Any]:
    versions = {"a": 1, "b": 2}
    writer = open_pair(folder, kind, versions)
    for key in versions:
        writer.put(key, two_tiles())
    writer.finish()
    writer.close()
    return versions


@pytest.mark.parametrize("name", NAMES["lmdb"])
@pytest.mark.parametrize("damage", ["one less", "other names", "one more", "no list", "no LMDB"])
def test_a_list_that_is_another_than_the_contents_is_named(tmp_path: Path, name: str, damage: str) -> None:
    versions = complete_pair(tmp_path)
    path = tmp_path / name / "meta_info.txt"
    lines = path.read_text().splitlines(keepends=True)
    if damage == "no list":
        path.unlink()
    elif damage == "no LMDB":
        (tmp_path / name / "data.mdb").unlink()
    else:
        others = [line.replace("b_s", "c_s") for line in lines]
        path.write_text(
            "".join({"one less": lines[1:], "other names": others, "one more": [*lines, "d.png 1\n"]}[damage])
        )
    with pytest.raises(UserError, match=rf"{name} is damaged: it does not hold what its meta_info.txt lists"):
        open_pair(tmp_path, "lmdb", versions)


@pytest.mark.parametrize("settings", ["5", "[]", "null", '{"images": 5}', '{"images": ["a"]}', "\0\0", '{"a"'])
@pytest.mark.parametrize("kind", NAMES)
def test_settings_that_make_no_sense_are_others(tmp_path: Path, kind: str, settings: str) -> None:
    versions = complete_pair(tmp_path, kind)
    next(tmp_path.rglob(SETTINGS_FILE)).write_text(settings)
    with pytest.raises(UserError, match=r"made (from other images or )?otherwise"):
        open_pair(tmp_path, kind, versions)
