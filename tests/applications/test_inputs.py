"""Images that names mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from srflow_plugin.applications.inputs import find_inputs
from srflow_plugin.errors import UserError
from srflow_plugin.images.files import write_image
from tests.helpers import UNIX, noise_image


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder, entered, with images and other things."""
    monkeypatch.chdir(tmp_path)
    Path("in/more").mkdir(parents=True)
    for name in ("in/a.png", "in/b.JPG", "in/more/a.png", "in/[c].png"):
        write_image(Path(name), noise_image(4, 6))
    Path("in/notes.txt").write_text("notes")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["in"], ["in/[c].png", "in/a.png", "in/b.JPG"]),
        (["in/b.JPG", "in/a.png"], ["in/b.JPG", "in/a.png"]),
        (["in/a.png", "in"], ["in/a.png", "in/[c].png", "in/b.JPG"]),
        (["in/*.png"], ["in/[c].png", "in/a.png"]),
        (["in/**/a.png"], ["in/a.png", "in/more/a.png"]),
        (["in/[c].png"], ["in/[c].png"]),  # a file's name first, a pattern otherwise
        (["in/notes.txt"], ["in/notes.txt"]),  # what is named is read, whatever its name
    ],
)
def test_each_image_is_found_once(names: list[str], found: list[str]) -> None:
    assert [one.path for one in find_inputs(names)] == [Path(name) for name in found]


HIDDEN = ["._a.png", ".DS_Store", ".hidden/x.png", "__MACOSX/a.png"]
IMAGES = ["a.jfif", "b.gif", "c.ppm", "d.TIFF", "\u30c6\u30b9\u30c8 \u00e9.png"]


def test_all_that_can_be_read_is_taken_and_the_rest_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (*HIDDEN, *IMAGES, "sub/deep/x.png", "sub/y.webp", "film.mov", "notes.txt", "text.txt", "README"):
        Path("in", name).parent.mkdir(parents=True, exist_ok=True)
        Path("in", name).write_bytes(b"")
    assert [str(one.path.relative_to("in")) for one in find_inputs(["in"])] == IMAGES
    told = capsys.readouterr().err
    assert "in: 4 files left out, no images (2 .txt, 1 without an ending, 1 .mov)" in told
    assert "in: 1 folder left out; --recursive takes images there, too" in told
    found = find_inputs(["in"], recursive=True)
    assert [str(one.path.relative_to("in")) for one in found] == [
        *IMAGES[:4],
        "sub/deep/x.png",
        "sub/y.webp",
        IMAGES[4],
    ]
    assert [one.below for one in found[4:6]] == [Path("sub/deep"), Path("sub")]
    with pytest.raises(UserError, match="in/sub has no images; it has 1 folder, whose images --recursive takes"):
        Path("in/sub/y.webp").unlink()
        find_inputs(["in/sub"])


@UNIX
@pytest.mark.usefixtures("folder")
def test_links_in_circles_are_followed_once_and_those_that_lead_nowhere_are_left_to_their_reader() -> None:
    before = [one.path for one in find_inputs(["in"], recursive=True)]
    Path("in/circle").symlink_to(".")
    Path("in/more/up").symlink_to("..")
    Path("in/z.png").symlink_to("nowhere")
    Path("other").mkdir()
    write_image(Path("other/b.png"), noise_image(4, 6))
    Path("in/link").symlink_to("../other")
    found = [one.path for one in find_inputs(["in"], recursive=True)]
    assert set(found) == {*before, Path("in/z.png"), Path("in/link/b.png")}
    with pytest.raises(UserError, match=r"in/z\.png does not exist"):
        find_inputs(["in/z.png"])
