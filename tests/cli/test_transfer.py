"""srflow transfer: an edited image in the light of the original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from srflow_plugin.images.files import read_image
from tests.helpers import refusal, srflow


@pytest.mark.usefixtures("studio")
def test_content_is_decoded_on_the_originals_lr_image() -> None:
    hr, other = read_image(Path("hr.png")), read_image(Path("other.png"))
    srflow("transfer other.png hr.png -o transferred.png")
    assert read_image(Path("transferred.png")).shape == hr.shape
    assert not np.array_equal(read_image(Path("transferred.png")), other)
    srflow("transfer hr.png hr.png -o same.png")
    assert np.array_equal(read_image(Path("same.png")), hr)
    srflow("transfer hr.png hr.png --lq dark.png -o dark.png --overwrite")
    assert not np.array_equal(read_image(Path("dark.png")), hr)


@pytest.mark.usefixtures("studio")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("hr.png nowhere.png -o a.png", "nowhere.png does not exist"),
        ("odd.png hr.png -o a.png", "hr.png has 52x44 pixels, not 48x40 as the other image"),
        ("other.png hr.png -o a.gif", "a.gif must end in .png"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(
    capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    assert message in refusal(capsys, "transfer", *arguments.split(), "--checkpoint", "net.pth")
