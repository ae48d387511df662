"""srflow redraw: a painted part of a picture, drawn anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srflow_plugin import load_network
from srflow_plugin.applications.redraw import read_mask, redraw_photograph
from srflow_plugin.checkpoints.convert import convert
from srflow_plugin.checkpoints.shipped import SHIPPED
from srflow_plugin.images.files import read_image
from srflow_plugin.images.rows import read_photograph
from srflow_plugin.images.writing import write_photograph
from tests.helpers import noise_image, refusal, srflow


@pytest.fixture(autouse=True)
def _calm(studio: Path) -> None:
    """Masks, and a trained network: one of random weights explodes."""
    convert(SHIPPED["photo"].path, Path("net.pth"), overwrite=True)
    mask = np.zeros((44, 52), np.uint8)
    mask[10:30, 15:40] = 255
    Image.fromarray(mask).save("mask.png")
    Image.fromarray(mask[4::4, 4::4]).save("small.png")
    Image.fromarray(0 * mask).save("empty.png")


def test_the_picture_is_what_the_function_gives(capsys: pytest.CaptureFixture[str]) -> None:
    srflow("redraw hr.png --mask mask.png --temperature 0.5 --seed 3")
    before, after, mask = (read_image(Path(name)) for name in ("hr.png", "hr_redrawn.png", "mask.png"))
    changed = (before != after).any(2)
    assert changed.any() and not changed[mask[..., 0] == 0].any()
    assert capsys.readouterr().out == f"hr_redrawn.png is written: {changed.sum()} of {44 * 52} pixels changed.\n"
    network, picture = load_network("net.pth"), read_photograph(Path("hr.png"))
    expected = redraw_photograph(network, picture, read_mask(Path("mask.png")), None, 0.5, 3)
    assert np.array_equal(after, expected.photograph.quantised())
    srflow("redraw hr.png --mask mask.png --lq lr.png -o same.png --temperature 0.5 --seed 3")
    assert np.array_equal(read_image(Path("same.png")), after)
    srflow("redraw hr.png --mask mask.png --factor 0.5 -o calmer.png")
    assert not np.array_equal(read_image(Path("calmer.png")), after)


def test_kinds_of_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    deep = read_photograph(Path("odd.png"))._replace(bits=16, alpha=np.float32(noise_image(43, 50)[..., 0] / 255))
    write_photograph(Path("deep.png"), deep)
    Image.fromarray(np.full((10, 12), 255, np.uint8)).save("small.png")
    srflow("redraw deep.png --mask small.png -o deep.png --overwrite --temperature 0.5")
    told = capsys.readouterr()
    pixels, before = read_photograph(Path("deep.png")).quantised(), deep.quantised()
    assert pixels.dtype == np.uint16 and pixels.shape == (43, 50, 4)
    assert np.array_equal(pixels[..., 3], before[..., 3]) and np.array_equal(pixels[40:], before[40:])
    assert f"{(pixels != before).any(2).sum()} of {43 * 50} pixels changed" in told.out and told.err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nowhere.png --mask mask.png", "nowhere.png does not exist"),
        ("hr.png --mask nowhere.png", "nowhere.png does not exist"),
        ("hr.png --mask mask.png --lq nowhere.png", "nowhere.png does not exist"),
        ("hr.png", "the following arguments are required: --mask"),
        ("hr.png --mask empty.png", "empty.png: nothing is painted"),
        ("odd.png --mask mask.png", "odd.png: the mask has 52x44 pixels; the picture has 50x43, its LR image 12x10"),
        ("hr.png --mask mask.png -o hr.png", "hr.png exists; give --overwrite or another name"),
        ("hr.png --mask mask.png -o mask.png --overwrite", "mask.png is read as well"),
        ("hr.png --mask mask.png --lq lr.png -o lr.png --overwrite", "lr.png is read as well"),
        ("hr.png --mask mask.png -o a.jpg", "a.jpg must end in .png"),
        ("hr.png --mask mask.png -o no/a.png", "no is not a folder"),
        ("hr.png --mask mask.png --lq odd.png", "hr.png: picture and LR image have 52x44 and 50x43 pixels"),
        ("hr.png --mask mask.png --factor 0.5 --temperature 1", "not allowed with argument"),
        ("hr.png --mask mask.png --temperature nan", "argument --temperature: nan must be 0 or more"),
        ("hr.png --mask mask.png --factor -1", "argument --factor: -1 must be 0 or more"),
        ("hr.png --mask net.pth", "net.pth is not an image that can be read"),
        ("hr.png --mask mask.png --scale 8", "net.pth is a network of scale 4, not 8"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(
    capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    assert message in refusal(capsys, "redraw", *arguments.split(), "--checkpoint", "net.pth")
