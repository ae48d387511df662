"""srflow decode: latents become the HR image again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from srflow_plugin.images.files import read_image
from tests.helpers import refusal, srflow


@pytest.mark.usefixtures("studio")
def test_an_image_comes_back_from_its_latents_bit_for_bit() -> None:
    srflow("encode hr.png -o a.safetensors")
    srflow("decode a.safetensors -o back.png")
    assert np.array_equal(read_image(Path("back.png")), read_image(Path("hr.png")))
    srflow("decode a.safetensors --lq dark.png -o dark_back.png")
    assert not np.array_equal(read_image(Path("dark_back.png")), read_image(Path("hr.png")))
    srflow("decode a.safetensors --lq lr.png -o back.png --overwrite")
    assert np.array_equal(read_image(Path("back.png")), read_image(Path("hr.png")))


@pytest.mark.usefixtures("studio")
def test_mistakes_get_one_line_and_leave_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    srflow("encode hr.png -o a.safetensors")
    capsys.readouterr()
    for arguments, message in [
        ("nowhere.safetensors -o a.png", "nowhere.safetensors does not exist"),
        ("net.pth -o a.png", "net.pth is not a readable file of latents"),
        ("a.safetensors --lq odd.png -o a.png", "this network and LR image have"),
        ("a.safetensors -o a.npy", "a.npy must end in .png"),
        ("a.safetensors -o hr.png", "hr.png exists; give --overwrite or another name"),
    ]:
        assert message in refusal(capsys, "decode", *arguments.split(), "--checkpoint", "net.pth")
