"""srflow interpolate: images between two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from srflow_plugin.images.files import read_image
from tests.helpers import refusal, srflow


@pytest.mark.usefixtures("studio")
def test_the_way_begins_and_ends_at_the_images() -> None:
    srflow("interpolate hr.png other.png -o way --steps 3")
    assert sorted(path.name for path in Path("way").iterdir()) == ["000.png", "001.png", "002.png", "grid.png"]
    first, between, last = (read_image(Path(f"way/00{number}.png")) for number in range(3))
    assert np.array_equal(first, read_image(Path("hr.png"))) and np.array_equal(last, read_image(Path("other.png")))
    assert between.shape == first.shape
    grid = read_image(Path("way/grid.png"))
    assert np.array_equal(grid[-44:, :52], first) and np.array_equal(grid[-44:, -52:], last)


@pytest.mark.usefixtures("studio")
def test_files_are_replaced_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    Path("way").mkdir()
    Path("way/mine.png").write_text("mine")
    srflow("interpolate hr.png other.png -o way --steps 4")
    again = ("interpolate", "hr.png", "other.png", "-o", "way", "--steps", "3")
    assert "way/000.png exists; give --overwrite or another name" in refusal(capsys, *again)
    srflow("interpolate other.png hr.png -o way --steps 3 --overwrite")
    assert capsys.readouterr().err == "way: 003.png of an earlier way stay\n"
    assert np.array_equal(read_image(Path("way/000.png")), read_image(Path("other.png")))
    assert Path("way/mine.png").read_text() == "mine"


@pytest.mark.usefixtures("studio")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nowhere.png hr.png -o way", "nowhere.png does not exist"),
        ("hr.png odd.png -o way", "odd.png has 48x40 pixels, not 52x44"),
        ("hr.png other.png -o way --steps 1", "argument --steps: 1 must be 2 or more"),
        ("hr.png other.png -o way --steps nan", "argument --steps: invalid whole number value: 'nan'"),
        ("hr.png other.png -o hr.png", "hr.png is a file; name a folder"),
        ("hr.png other.png -o hr.png --overwrite", "hr.png is a file; name a folder"),
        ("hr.png other.png -o no/way", "no is not a folder; make it first"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(
    capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    assert message in refusal(capsys, "interpolate", *arguments.split(), "--checkpoint", "net.pth")
