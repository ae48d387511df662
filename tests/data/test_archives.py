"""Images out of archives."""

from __future__ import annotations

import re
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from srflow_plugin.data import archives
from srflow_plugin.data.archives import archive_stem, is_archive, split_archive, unpack
from srflow_plugin.errors import UserError
from tests.helpers import ARCHIVED, JUNK, litter, make_archive, noise_png
from tests.stress.archives import header_of, tar_of, with_pax, zeros, zip_of


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tar.gz"])
def test_a_folder_of_an_archive(name: str, tmp_path: Path) -> None:
    hidden = {f"{folder}/top/HR/c.png": b"hidden" for folder in ("__MACOSX", "@eaDir", "$RECYCLE.BIN", ".trash")}
    hidden |= {f"top/HR/{name}": b"" for name in JUNK}
    archive = make_archive(tmp_path / name, {**ARCHIVED, **hidden})
    target = unpack(archive, "HR", tmp_path / "out" / "HR")
    unpacked = {path.name: path.read_bytes() for path in target.iterdir()}
    assert unpacked == {"a.png": noise_png(0), "b.png": noise_png(1)}
    litter(target)  # as a system does that shows it
    assert unpack(archive, "HR", target) == target
    with pytest.raises(UserError, match=r"images in 2 folders \(top/HR, top/LR\); name one: .*/top/HR"):
        unpack(archive, "", tmp_path / "out" / "all")
    with pytest.raises(UserError, match=r"R of .* has no images"):
        unpack(archive, "R", tmp_path / "out" / "R")  # a folder's name, not the end of one


def test_unpacking_goes_on_where_it_was_killed_and_sees_another_archive(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "set.zip", ARCHIVED)
    unfinished = tmp_path / "HR.unfinished"
    unfinished.mkdir()
    (unfinished / "a.png").write_bytes(noise_png(0))
    there = (unfinished / "a.png").stat().st_ino
    (unfinished / "b.png").write_bytes(bytes(len(noise_png(1))))  # of the right size, as after a power cut
    target = unpack(archive, "HR", tmp_path / "HR")
    assert (target / "a.png").stat().st_ino == there and (target / "b.png").read_bytes() == noise_png(1)
    make_archive(archive, {"HR/c.png": noise_png(3)})
    with pytest.raises(UserError, match="holds other images than"):
        unpack(archive, "HR", tmp_path / "HR")


def test_archives_cannot_write_elsewhere(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "set.zip", {"../../evil.png": noise_png(0), f"{tmp_path}/evil.png": noise_png(1)})
    unpack(archive, "", tmp_path / "a" / "b")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")) == ["a/b/evil.png"]


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tar.gz"])
def test_damaged_archives(name: str, tmp_path: Path) -> None:
    archive = make_archive(tmp_path / name, ARCHIVED)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(UserError, match=r"set.* cannot be unpacked"):
        unpack(archive, "HR", tmp_path / "HR")
    assert not (tmp_path / "HR").exists()


@pytest.mark.parametrize(
    ("path", "archive", "folder"),
    [
        ("set.tar.gz", "set.tar.gz", ""),
        ("set.tar.gz/top/HR", "set.tar.gz", "top/HR"),
        ("folder/set.zip/HR", "folder/set.zip", "HR"),
        ("folder.zip/HR", None, None),  # a folder of that name
        ("none.zip/HR", None, None),
    ],
)
def test_a_folder_in_an_archive_is_written_as_a_path(
    tmp_path: Path, path: str, archive: str | None, folder: str | None
) -> None:
    for name in ("folder", "folder.zip/HR"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("set.tar.gz", "folder/set.zip"):
        (tmp_path / name).touch()
    assert split_archive(tmp_path / path) == (None if archive is None else (tmp_path / archive, folder))


def test_names_of_archives() -> None:
    assert is_archive(Path("a/SET.TAR.GZ")) and is_archive(Path("a.tgz")) and not is_archive(Path("a.zip.png"))
    assert [archive_stem(name) for name in ("a.tar.gz", "a.b.zip", "A.TGZ")] == ["a", "a.b", "A"]


# -- archives of strangers ---------------------------------------------------------------------------------------------

MANY = 200_000_000  # bytes


def damaged_bzip2(path: Path) -> None:
    path.with_name("a").write_bytes(np.random.default_rng(0).bytes(2_000_000))
    with tarfile.open(path, "w:bz2") as tarred:
        tarred.add(path.with_name("a"), "a.png")
    data = bytearray(path.read_bytes())
    data[-9000:-8000] = bytes(1000)
    path.write_bytes(data)


HOSTILE: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "longer than it claims": ("a.zip", lambda path: zip_of(path, MANY, 100), "longer than|Bad CRC"),
    "shorter than it claims": ("a.zip", lambda path: zip_of(path, 100, 1000), "shorter than"),
    "an image of 5 GiB": ("a.zip", lambda path: zip_of(path, 100, 5 * 2**30), "'0.png' has 5.0 GiB"),
    "entries that share their bytes": (
        *("a.zip", lambda path: zip_of(path, 10_000_000, entries=400), "would become 3.7 GiB|Overlapped"),
    ),
    "more than there is in a tar": (
        *("a.tar.gz", lambda path: tar_of(path, header_of("a.png", 5 * 2**30), zeros(9)), "unexpected end of data"),
    ),
    "a long name": (
        *("a.tar.gz", lambda path: tar_of(path, header_of("x", MANY, tarfile.GNUTYPE_LONGNAME), zeros(MANY))),
        "a name or header of 200000000 bytes",
    ),
    "a long link": (
        *("a.tgz", lambda path: tar_of(path, header_of("x", MANY, tarfile.GNUTYPE_LONGLINK), zeros(MANY))),
        "a name or header of 200000000 bytes",
    ),
    "long pax headers": (
        *("a.tar.gz", lambda path: tar_of(path, header_of("x", MANY, tarfile.XHDTYPE), zeros(MANY))),
        "a name or header of 200000000 bytes",
    ),
    "long pax headers of all": (
        *("a.tar.gz", lambda path: tar_of(path, header_of("x", MANY, tarfile.XGLTYPE), zeros(MANY))),
        "a name or header of 200000000 bytes",
    ),
    "holes": (
        *("a.tar.gz", lambda path: tar_of(path, header_of("a.png", 512, tarfile.GNUTYPE_SPARSE), zeros(512))),
        "files with holes",
    ),
    "holes of a size": (
        "a.tar.gz",
        lambda path: with_pax(path, {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(MANY)}, zeros(512), 512),
        "files with holes",
    ),
    "holes without end": (
        "a.tar.gz",
        lambda path: with_pax(
            *(path, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a.png"}),
            *((b"9" * 8 + b"\n" + b"0\n" * (2**19) for _ in range(50)), 50 * 2**20),
        ),
        "files with holes",
    ),
    "damaged bzip2": ("a.tar.bz2", damaged_bzip2, "Invalid data stream"),
    "a name with a NUL": (
        *("a.tar.gz", lambda path: with_pax(path, {"path": "a\0.png"}, zeros(512), 512), "null|cannot be unpacked"),
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_archives_that_would_fill_the_memory_or_the_disk(case: str, tmp_path: Path) -> None:
    name, make, message = HOSTILE[case]
    make(tmp_path / name)
    assert (tmp_path / name).stat().st_size < 3_000_000
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=rf"a\..*({message})"):
            unpack(tmp_path / name, "", tmp_path / "out")
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
    assert not list(tmp_path.rglob("*.png*"))


def test_no_archive_has_entries_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_ENTRIES", 3)
    for name in ("set.zip", "set.tar"):
        with pytest.raises(UserError, match="more than 3 entries"):
            unpack(make_archive(tmp_path / name, ARCHIVED), "HR", tmp_path / "HR")


@pytest.mark.parametrize("name", ["a\n.png", "\x1b[31mred.png", "a\u202eb.png", "a\x7f.png"])
def test_names_that_terminals_obey_are_refused(name: str, tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "set.zip", {name: noise_png(0)})
    with pytest.raises(UserError, match=re.escape(f"{name!r} is no name for a file here")):
        unpack(archive, "", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]


@pytest.mark.parametrize("length", [250, 255])
def test_names_as_long_as_names_can_be(length: int, tmp_path: Path) -> None:
    name = f"{'n' * (length - 4)}.png"
    archive = make_archive(tmp_path / "set.zip", {name: noise_png(0)})
    assert (unpack(archive, "", tmp_path / "out") / name).read_bytes() == noise_png(0)
