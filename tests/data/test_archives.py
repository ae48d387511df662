"""Images out of archives."""

from __future__ import annotations

from pathlib import Path

import pytest

from srflow_plugin.data.archives import archive_stem, is_archive, split_archive, unpack
from srflow_plugin.errors import UserError
from tests.helpers import ARCHIVED, JUNK, litter, make_archive, noise_png


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
    (unfinished / "a.png").write_bytes(bytes(len(noise_png(0))))  # the right size: taken for done
    (unfinished / "b.png").write_bytes(b"begun")
    target = unpack(archive, "HR", tmp_path / "HR")
    assert (target / "a.png").read_bytes() == bytes(len(noise_png(0))) and (target / "b.png").read_bytes() == noise_png(
        1
    )
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
