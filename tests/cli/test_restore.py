"""srflow restore: normalised latents, decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from srflow_plugin import load_network
from srflow_plugin.applications.editing import restore
from srflow_plugin.images.files import read_image
from srflow_plugin.images.tensors import to_pixels, to_tensor
from tests.helpers import refusal, srflow


@pytest.mark.usefixtures("studio")
def test_the_picture_is_what_the_function_gives() -> None:
    srflow("restore hr.png -o restored.jpg --temperature 0.5 --window 5")
    assert read_image(Path("restored.jpg")).shape == read_image(Path("hr.png")).shape
    srflow("restore hr.png -o restored.png --temperature 0.5 --window 5")
    gt, lq = (to_tensor(read_image(Path(name))) for name in ("hr.png", "lr.png"))
    expected = restore(load_network("net.pth"), gt, lq, 0.5, 5)
    assert np.array_equal(read_image(Path("restored.png")), to_pixels(expected[0]))


@pytest.mark.usefixtures("studio")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nowhere.png -o a.png", "nowhere.png does not exist"),
        ("hr.png -o a.png --window 2", "argument --window: 2 must be from 3"),
        ("hr.png -o a.png --window 4", "argument --window: 4 must be odd"),
        ("hr.png -o a.png --window nan", "argument --window: invalid window value: 'nan'"),
        ("hr.png -o a.png --window 1000000001", "argument --window: 1000000001 must be from 3"),
        ("hr.png -o a.png --temperature nan", "argument --temperature: nan must be 0 or more"),
        ("hr.png -o a.png --temperature inf", "argument --temperature: inf must be 0 or more, and finite"),
        ("hr.png -o a.png --temperature -1", "argument --temperature: -1 must be 0 or more"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(
    capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    assert message in refusal(capsys, "restore", *arguments.split(), "--checkpoint", "net.pth")
