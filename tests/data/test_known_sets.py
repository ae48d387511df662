"""The field's data sets by name: fetched once, checked."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from srflow_plugin.data.known_sets import KNOWN_SETS, Archive, KnownSet, fetch
from srflow_plugin.errors import UserError
from tests.helpers import ARCHIVED, Server, make_archive

PAGE = "https://page"


@pytest.fixture
def small(server: Server, tmp_path: Path) -> KnownSet:
    """A data set: the second of two images."""
    data = make_archive(tmp_path / "small.zip", ARCHIVED).read_bytes()
    server.contents["/small.zip"] = data
    checksum = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return KnownSet(Archive("small.zip", len(data), checksum, f"{server.url}/small.zip", PAGE), "HR", 2, 2, 2)


def test_a_set_is_fetched_once(server: Server, small: KnownSet, tmp_path: Path) -> None:
    downloads = tmp_path / "downloads"
    for _ in range(2):
        (image,) = fetch(small, downloads)
        assert image == downloads / "small" / "HR" / "b.png" and image.read_bytes() == ARCHIVED["top/HR/b.png"]
    assert fetch(small._replace(first=1), downloads) == [image.with_name("a.png"), image]
    assert server.starts == [0]
    (downloads / "small.zip").unlink()  # what is unpacked is enough
    assert fetch(small, downloads) == [image]
    image.unlink()
    with pytest.raises(UserError, match="small/HR has 1 images, 2 are expected; delete it, it will be made anew"):
        fetch(small, downloads)


def test_an_archive_that_is_there_is_checked(small: KnownSet, tmp_path: Path) -> None:
    (tmp_path / "small.zip").write_bytes(bytes(small.archive.size or 0))
    with pytest.raises(UserError, match=r"small\.zip has another sha256 than expected"):
        fetch(small, tmp_path)


def test_what_only_a_person_can_have_says_where(small: KnownSet, tmp_path: Path) -> None:
    by_hand = small._replace(archive=small.archive._replace(url=None))
    with pytest.raises(
        UserError, match=rf"none/small\.zip does not exist: get small\.zip from {PAGE} and put it there"
    ):
        fetch(by_hand, tmp_path / "none")
    assert fetch(by_hand, tmp_path)[0].name == "b.png"


def test_the_table_of_data_sets() -> None:
    assert {"DIV2K", "Flickr2K", "DF2K", "CelebA", "Set5", "Set14", "BSD100", "Urban100", "Manga109"} <= set(KNOWN_SETS)
    assert KNOWN_SETS["DF2K"] == KNOWN_SETS["DIV2K"] + KNOWN_SETS["Flickr2K"]
    for parts in KNOWN_SETS.values():
        for part in parts:
            assert 1 <= part.first <= part.last <= part.in_folder
            digits = (part.archive.checksum or "").partition(":")[2]
            assert len(digits) in (0, 32, 64) and (digits or part.archive.url is None)
