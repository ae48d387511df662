"""srflow encode: an HR image becomes latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from srflow_plugin import load_network
from srflow_plugin.applications.latents import read_latents
from srflow_plugin.images.files import read_image, write_image
from srflow_plugin.images.tensors import to_tensor
from tests.helpers import refusal, srflow


@pytest.mark.usefixtures("studio")
def test_latents_are_the_networks_and_the_nll_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    srflow("encode hr.png -o a.safetensors")
    told = capsys.readouterr().out
    gt, lq = (to_tensor(read_image(Path(name))) for name in ("hr.png", "lr.png"))
    with torch.no_grad():
        network = load_network("net.pth")
        encoding, nll, bits = network.encoding(gt, lq), network(gt, lq).item(), network.code_length(gt, lq).item()
    latents, read_lq = read_latents("a.safetensors")
    assert torch.equal(read_lq, lq)
    assert all(torch.equal(*pair) for pair in zip(latents, encoding.latents, strict=True))
    assert f"NLL {nll:.4f} bits per dimension (density of the float image)" in told
    assert f"code length {bits:.4f} bits per dimension of the 8 bit image" in told and abs(bits - nll - 8) < 8
    assert read_latents("a.safetensors", network)
    srflow("encode hr.png --lq lr.png -o b.safetensors")
    assert Path("a.safetensors").read_bytes() == Path("b.safetensors").read_bytes()


@pytest.mark.usefixtures("studio")
@pytest.mark.parametrize("size", [(44, 52), (20, 28)])
def test_exact_latents_give_back_every_pixel_of_an_image_that_no_network_knows(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    write_image(Path("noise.png"), pixels)
    srflow("encode noise.png --exact -o exact.safetensors")
    latents, lq = read_latents("exact.safetensors")
    assert {latent.dtype for latent in [*latents, lq]} == {torch.float64}
    srflow("decode exact.safetensors -o back.png")
    assert np.array_equal(read_image(Path("back.png")), pixels)
    srflow("encode noise.png -o short.safetensors")  # the network of both is still one of float32
    assert read_latents("short.safetensors")[0][0].dtype == torch.float32


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
        (". -o new.safetensors", ". is a folder; give a file"),
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
