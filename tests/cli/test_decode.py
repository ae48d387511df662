"""srflow decode: latents become the HR image again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from srflow_plugin.applications.latents import read_latents, save_latents
from srflow_plugin.checkpoints.convert import convert
from srflow_plugin.cli.main import srflow_command
from srflow_plugin.images.files import read_image
from tests.helpers import refusal, small_network, srflow


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
def test_another_network_is_refused_and_the_same_one_in_another_format_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    srflow("encode hr.png -o a.safetensors")
    other = small_network(scale_floor=0.3)
    with torch.no_grad():
        other.flow.splits[0].prior.weight[0, 0, 0, 0] += 1e-3
    torch.save({"params": other.state_dict()}, "other.pth")
    torch.save({"params": small_network(scale_floor=0.31).state_dict()}, "settings.pth")
    convert(Path("net.pth"), Path("half.pth"), storage="half")
    capsys.readouterr()
    for name in ("other", "settings", "half"):
        message = refusal(capsys, "decode", "a.safetensors", "-o", "b.png", "--checkpoint", f"{name}.pth")
        assert "a.safetensors was encoded by net.pth, whose weights are not these; give that one as" in message
    convert(Path("net.pth"), Path("net.safetensors"))
    srflow_command(["decode", "a.safetensors", "-o", "b.png", "--checkpoint", "net.safetensors"])
    assert np.array_equal(read_image(Path("b.png")), read_image(Path("hr.png")))
    assert not capsys.readouterr().err


@pytest.mark.usefixtures("studio")
def test_latents_that_do_not_say_of_which_network_they_are_get_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    srflow("encode hr.png -o a.safetensors")
    save_latents("old.safetensors", *read_latents("a.safetensors"))
    srflow("decode old.safetensors -o b.png")
    assert "old.safetensors does not say which network encoded it" in capsys.readouterr().err
    assert np.array_equal(read_image(Path("b.png")), read_image(Path("hr.png")))


@pytest.mark.usefixtures("studio")
def test_mistakes_get_one_line_and_leave_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    srflow("encode hr.png -o a.safetensors")
    capsys.readouterr()
    for arguments, message in [
        ("nowhere.safetensors -o a.png", "nowhere.safetensors does not exist"),
        ("net.pth -o a.png", "net.pth is not a readable file of latents: it is damaged, or holds something else"),
        ("hr.png -o a.png", "hr.png is not a readable file of latents: it is a PNG image"),
        (". -o a.png", ". is a folder; give a file"),
        ("a.safetensors --lq odd.png -o a.png", "this network and LR image have"),
        ("a.safetensors -o a.npy", "a.npy must end in .png"),
        ("a.safetensors -o hr.png", "hr.png exists; give --overwrite or another name"),
    ]:
        assert message in refusal(capsys, "decode", *arguments.split(), "--checkpoint", "net.pth")
