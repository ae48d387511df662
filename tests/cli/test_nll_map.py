"""srflow nll-map: where the model is surprised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from srflow_plugin import load_network
from srflow_plugin.images.files import read_image, write_image
from srflow_plugin.images.tensors import to_tensor
from tests.helpers import refusal, srflow


@pytest.mark.usefixtures("studio")
def test_numbers_and_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    srflow("nll-map odd.png -o nll.npy")
    mean = next(float(line.split()[1]) for line in capsys.readouterr().out.splitlines() if line.startswith("mean"))
    numbers = np.load("nll.npy")
    assert numbers.shape == (40, 48) and numbers.mean() == pytest.approx(mean, abs=1e-4)
    srflow("nll-map hr.png -o nll.png")
    assert read_image(Path("nll.png")).shape[1] == 52 and read_image(Path("nll.png")).shape[0] > 44


@pytest.mark.usefixtures("studio")
def test_the_mean_is_the_nll(capsys: pytest.CaptureFixture[str]) -> None:
    write_image(Path("even.png"), read_image(Path("hr.png"))[:40, :48])
    write_image(Path("even_lr.png"), read_image(Path("lr.png"))[:10, :12])
    srflow("nll-map even.png --lq even_lr.png -o nll.npy")
    with torch.no_grad():
        nll = load_network("net.pth")(*(to_tensor(read_image(Path(name))) for name in ("even.png", "even_lr.png")))
    assert np.load("nll.npy").mean() == pytest.approx(nll.item(), rel=1e-5)
    assert f"mean {nll.item():.4f} bits/dim: the NLL, a density" in capsys.readouterr().out


@pytest.mark.usefixtures("studio")
def test_the_bits_of_the_8_bit_image_have_a_map_and_a_name_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    srflow("nll-map hr.png --lq lr.png --code-length -o bits.npy")
    with torch.no_grad():
        gt, lq = (to_tensor(read_image(Path(name))) for name in ("hr.png", "lr.png"))
        bits = load_network("net.pth").code_length(gt, lq)
    assert np.load("bits.npy").mean() == pytest.approx(bits.item(), rel=1e-4)
    out = capsys.readouterr().out
    assert f"mean {bits.item():.4f} bits/dim of the 8 bit image at most" in out and "NLL" not in out


@pytest.mark.usefixtures("studio")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nowhere.png -o a.png", "nowhere.png does not exist"),
        ("hr.png -o lr.png", "lr.png exists; give --overwrite or another name"),
        ("hr.png -o nowhere/a.png", "nowhere is not a folder"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(
    capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    assert message in refusal(capsys, "nll-map", *arguments.split(), "--checkpoint", "net.pth")
