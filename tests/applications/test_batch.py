"""What is read and what is written, settled before any work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from srflow_plugin.applications.batch import Wanted, plan
from srflow_plugin.errors import UserError
from srflow_plugin.images.files import write_image
from tests.helpers import files_below, noise_image


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder, entered, with images and other things; nothing of it changes."""
    monkeypatch.chdir(tmp_path)
    Path("in/more").mkdir(parents=True)
    for name in ("in/a.png", "in/b.JPG", "in/more/a.png", "in/[c].png"):
        write_image(Path(name), noise_image(4, 6))
    Path("in/notes.txt").write_text("notes")
    before = files_below(tmp_path)
    yield tmp_path
    assert files_below(tmp_path) == before


@pytest.mark.usefixtures("folder")
def test_files_are_named_after_their_images() -> None:
    for output, file in (("out", "out/a.png"), ("b.png", "b.png")):
        (job,) = plan(["in/a.png"], Path(output), Wanted(), False, {})
        assert job[:2] == (Path("in/a.png"), {"sample0": Path(file)})
    (job,) = plan(["in/a.png"], Path("out"), Wanted(2, extras=["std", "sheet"], format="webp", suffix="_x4"), False, {})
    expected = {kind: Path(f"out/a_x4_{kind}.webp") for kind in ("sample0", "sample1")}
    assert job.outputs == {**expected, **{kind: Path(f"out/a_x4_{kind}.png") for kind in ("std", "sheet")}}
    (job,) = plan(["in/a.png"], Path("out"), Wanted(10, only=3), False, {})
    assert job.outputs == {"sample3": Path("out/a_sample3.png")}
    jobs = plan(["in"], Path("out"), Wanted(recursive=True), False, {})
    assert [job.outputs["sample0"] for job in jobs] == [
        Path("out/[c].png"),
        Path("out/a.png"),
        Path("out/b.png"),
        Path("out/more/a.png"),
    ]


@pytest.mark.usefixtures("folder")
def test_samples_are_the_same_among_others_and_means_are_not() -> None:
    def stamps(wanted: Wanted) -> dict[str, str]:
        return plan(["in/a.png"], Path("out"), wanted, False, {})[0].stamps

    ten, two, one = stamps(Wanted(10, extras=["mean"])), stamps(Wanted(2, extras=["mean"])), stamps(Wanted(5, only=1))
    assert ten["sample1"] == two["sample1"] == one["sample1"] and ten["mean"] != two["mean"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("names", "output", "num_samples", "overwrite", "message"),
    [
        (["in"], "one.png", 1, False, "one.png is one file; name a folder"),
        (["in/a.png"], "one.png", 2, False, "one.png is one file; name a folder"),
        (["in/a.png"], "one.gif", 1, False, "one.gif must end in .png, .jpg, .webp, .tiff"),
        (["in/a.png"], "no/one.png", 1, False, "no is not a folder"),
        (["in/a.png"], "in/notes.txt", 1, False, "in/notes.txt is not a folder"),
        (["in/a.png"], "in", 1, False, "in/a.png exists; give --overwrite or another -o"),
        (["in/a.png"], "in", 1, True, "in/a.png exists; choose another folder"),
        (["in/a.png"], "in/../in", 1, True, "exists; choose another folder"),
        (["in/**/a.png"], "out", 1, True, "in/a.png and in/more/a.png would both become out/a.png"),
        (["in/*.gif"], "out", 1, False, "no file matches in/*.gif"),
        (["nowhere"], "out", 1, False, "nowhere does not exist"),
    ],
)
def test_what_would_lose_something_is_refused(
    names: list[str], output: str, num_samples: int, overwrite: bool, message: str
) -> None:
    with pytest.raises(UserError) as error:
        plan(names, Path(output), Wanted(num_samples), overwrite, {})
    assert message in str(error.value) and "\n" not in str(error.value)
