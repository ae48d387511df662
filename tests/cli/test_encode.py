"""srflow encode: an HR image becomes latents."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from srflow_plugin import load_network
from srflow_plugin.applications.latents import read_latents
from srflow_plugin.images.files import read_image
from srflow_plugin.images.tensors import to_tensor
from tests.helpers import refusal, srflow


@pytest.mark.usefixtures("studio")
def test_latents_are_the_networks_and_the_nll_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    srflow("encode hr.png -o a.safetensors")
    told = capsys.readouterr().out
    gt, lq = (to_tensor(read_image(Path(name))) for name in ("hr.png", "lr.png"))
    with torch.no_grad():
        encoding = load_network("net.pth").encoding(gt, lq)
    latents, read_lq = read_latents("a.safetensors")
    assert torch.equal(read_lq, lq)
    assert all(torch.equal(*pair) for pair in zip(latents, encoding.latents, strict=True))
    assert f"NLL {encoding.nll().item():.4f} bits per dimension" in told
    srflow("encode hr.png --lq lr.png -o b.safetensors")
    assert Path("a.safetensors").read_bytes() == Path("b.safetensors").read_bytes()


@pytest.mark.usefixtures("studio")
def test_an_odd_size_is_cropped_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    srflow("encode odd.png -o odd.safetensors")
    assert "cropped to 48x40" in capsys.readouterr().err


@pytest.mark.usefixtures("studio")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nowhere.png -o new.safetensors", "nowhere.png does not exist"),
        ("hr.png --lq nowhere.png -o new.safetensors", "nowhere.png does not exist"),
        ("net.pth -o new.safetensors", "net.pth is not an image that can be read"),
        ("hr.png -o a.png", "a.png must end in .safetensors"),
        ("hr.png -o no/new.safetensors", "no is not a folder"),
        ("hr.png --lq hr.png -o new.safetensors", "hr.png has 52x44 pixels; hr.png needs 13x11"),
        ("hr.png -o new.safetensors --scale 8", "net.pth is a network of scale 4, not 8"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(
    capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    assert message in refusal(capsys, "encode", *arguments.split(), "--checkpoint", "net.pth")


@pytest.mark.usefixtures("studio")
def test_a_file_is_replaced_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.safetensors").write_text("mine")
    assert "a.safetensors exists; give --overwrite" in refusal(capsys, "encode", "hr.png", "-o", "a.safetensors")
    srflow("encode hr.png -o a.safetensors --overwrite")
    assert read_latents("a.safetensors")
