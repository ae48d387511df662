"""What is read and what is written, settled before any work."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from srflow_plugin.applications.batch import find_inputs, plan, write_outputs
from srflow_plugin.applications.upscale import bicubic
from srflow_plugin.errors import UserError
from srflow_plugin.images.files import read_image, write_image
from srflow_plugin.images.photographs import from_array
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
    assert find_inputs(names) == [Path(name) for name in found]


@pytest.mark.usefixtures("folder")
def test_files_are_named_after_their_images() -> None:
    for output, file in (("out", "out/a.png"), ("b.png", "b.png")):
        (job,) = plan(["in/a.png"], Path(output), 1, [], False, {})
        assert job[:2] == (Path("in/a.png"), {"sample0": Path(file)})
    (job,) = plan(["in/a.png"], Path("out"), 2, ["std", "sheet"], False, {})
    expected = {kind: Path(f"out/a_{kind}.png") for kind in ("sample0", "sample1", "std", "sheet")}
    assert job.outputs == expected


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("names", "output", "num_samples", "overwrite", "message"),
    [
        (["in"], "one.png", 1, False, "one.png is one file; name a folder"),
        (["in/a.png"], "one.png", 2, False, "one.png is one file; name a folder"),
        (["in/a.png"], "one.jpg", 1, False, "one.jpg must end in .png, or be a folder"),
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
        plan(names, Path(output), num_samples, [], overwrite, {})
    assert message in str(error.value) and "\n" not in str(error.value)


def test_all_that_was_asked_for_is_written(tmp_path: Path) -> None:
    photograph = from_array(noise_image(6, 8))
    samples = [from_array(noise_image(24, 32, seed)) for seed in (1, 2)]
    outputs = {kind: tmp_path / f"{kind}.png" for kind in ("sample0", "sample1", "mean", "std", "sheet")}
    write_outputs(outputs, photograph, partial(bicubic, scale=4), samples, "tau 0.8")
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in outputs.values()}
    drawn = [read_image(outputs[f"sample{number}"]) for number in range(2)]
    assert all(np.array_equal(image, noise_image(24, 32, seed)) for image, seed in zip(drawn, (1, 2), strict=True))
    assert np.abs(read_image(outputs["mean"]) - np.mean(drawn, axis=0)).max() <= 0.51
    sheet, std = read_image(outputs["sheet"]), read_image(outputs["std"])
    assert std.shape[1] == 32 and std.shape[0] > 24
    width_of_map = round(32 * 24 / std.shape[0])
    assert sheet.shape[1] == 4 * 32 + width_of_map + 4 * 4  # LR, bicubic, two samples and the map, with gaps

    (tmp_path / "alone").mkdir()
    outputs = {kind: tmp_path / "alone" / f"{kind}.png" for kind in ("sample0", "sheet")}
    write_outputs(outputs, photograph, partial(bicubic, scale=4), samples[:1], "tau 0")
    assert read_image(outputs["sheet"]).shape[1] == 3 * 32 + 2 * 4
