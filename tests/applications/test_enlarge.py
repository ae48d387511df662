"""One image into its files, in bands: what they are is what the whole would be, and what is not kept is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import srflow_plugin
from srflow_plugin.applications import enlarge
from srflow_plugin.applications.batch import Job, Wanted, plan
from srflow_plugin.applications.enlarge import enlarge_file
from srflow_plugin.applications.upscale import How, find_network
from srflow_plugin.errors import UserError
from srflow_plugin.images import rows
from srflow_plugin.images.resize import bicubic_downscale
from srflow_plugin.images.rows import read_photograph
from tests.helpers import ROOT, Enlarger, noise_image


def job_of(source: Path, folder: Path, wanted: Wanted) -> Job:
    (job,) = plan([str(source)], folder, wanted, True, {})
    return job


ONE = Wanted()


def drawn(source: Path, folder: Path, wanted: Wanted = ONE, **how: Any) -> dict[str, np.ndarray]:
    """Draw an image and read its files."""
    folder.mkdir(exist_ok=True)
    job = job_of(source, folder, wanted)
    settings = How(num_samples=wanted.num_samples, only=wanted.only, **how)
    enlarge_file(Enlarger(), job, settings, 95, 10**6)  # type: ignore[arg-type]
    return {kind: read_photograph(path).quantised() for kind, path in job.outputs.items()}


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "I;16"])
@pytest.mark.parametrize("outscale", [None, 2, 3, 2.5])
def test_bands_make_the_file_that_the_whole_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, outscale: float | None
) -> None:
    picture = Image.fromarray(noise_image(61, 30)).convert("L" if mode == "I;16" else mode)
    if "A" in mode:
        picture.putalpha(Image.fromarray(noise_image(61, 30)[..., 1]))
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    picture.save(tmp_path / "a.png")
    wanted = Wanted(2, extras=["mean", "std", "sheet"])
    whole = drawn(tmp_path / "a.png", tmp_path / "whole", wanted, tile=None, outscale=outscale)
    monkeypatch.setattr(rows, "STREAMED_FROM", 0)
    monkeypatch.setattr(rows, "ROWS_READ", 16)
    # The enlarger looks 2 pixels far, so that tiles change nothing.
    banded = drawn(tmp_path / "a.png", tmp_path / "banded", wanted, tile=8, outscale=outscale)
    assert whole.keys() == banded.keys()
    for kind, pixels in whole.items():
        assert np.abs(pixels.astype(int) - banded[kind]).max() <= (1 if pixels.dtype == np.uint8 else 2), kind
    height, width = (int(np.ceil((outscale or 4) * length)) for length in (61, 30))
    assert whole["sample0"].shape[:2] == (height, width)


def test_a_smaller_result_is_what_matlab_makes_of_the_large_one(tmp_path: Path) -> None:
    Image.fromarray(noise_image(20, 30)).save(tmp_path / "a.png")
    large = drawn(tmp_path / "a.png", tmp_path / "x4")["sample0"]
    for outscale in (1, 2):
        small = drawn(tmp_path / "a.png", tmp_path / f"x{outscale}", outscale=outscale)["sample0"]
        assert np.array_equal(small, bicubic_downscale(large, 4 // outscale))


def test_one_sample_is_the_same_alone(tmp_path: Path) -> None:
    Image.fromarray(noise_image(20, 30)).save(tmp_path / "a.png")
    many = drawn(tmp_path / "a.png", tmp_path / "many", Wanted(5))
    alone = drawn(tmp_path / "a.png", tmp_path / "alone", Wanted(5, only=3))
    assert alone.keys() == {"sample3"} and np.array_equal(alone["sample3"], many["sample3"])
    assert not np.array_equal(many["sample3"], many["sample2"])
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("srflow_plugin.applications.upscale.load_network", lambda path, **settings: Enlarger())
        (tmp_path / "net.pth").write_bytes(b"stands for a network")
        (array,) = srflow_plugin.upscale(picture, num_samples=5, only=3, checkpoint=tmp_path / "net.pth")
        halved = srflow_plugin.upscale(picture, outscale=2, checkpoint=tmp_path / "net.pth")
    assert np.array_equal(array, many["sample3"]) and halved.shape == (1, 40, 60, 3)


class Stranger(Enlarger):
    """Network that knows nothing brighter than half."""

    def decode(self, latents: Sequence[torch.Tensor], lq: torch.Tensor) -> torch.Tensor:
        bright = (lq.amax(1, keepdim=True) > 0.5).repeat_interleave(4, 2).repeat_interleave(4, 3)
        return super().decode(latents, lq).masked_fill(bright, torch.nan)


@pytest.mark.parametrize(("bright", "share"), [(0, None), (30, "100 % of it is bicubic"), (1, "17 % of it is bicubic")])
def test_what_the_network_does_not_know_is_bicubic_and_said(tmp_path: Path, bright: int, share: str | None) -> None:
    pixels = np.full((20, 30, 3), 100, np.uint8)
    pixels[:, :bright] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    job = job_of(tmp_path / "a.png", tmp_path, Wanted(suffix="_x4"))
    told = enlarge_file(Stranger(), job, How(), 95, 10**6)  # type: ignore[arg-type]
    assert [note for note in told.notes if "bicubic" in note] == [
        note for note in told.notes if share and note.startswith(share)
    ]
    assert bool(share) == bool(told.notes)
    result = read_photograph(tmp_path / "a_x4.png").quantised()
    assert result.min() > 40  # not black anywhere


def test_a_face_network_warns_of_what_is_no_face() -> None:
    network = find_network(8, None, "cpu")
    assert enlarge.face_warning(network, "srflow_x8_face", 20, 20) == []
    (line,) = enlarge.face_warning(network, "srflow_x8_face", 400, 600)
    assert line == ("srflow_x8_face knows faces alone, aligned and of 20x20 pixels; this image has 600x400")
    assert enlarge.face_warning(network, "srflow_x8", 400, 600) == []


def test_pictures_to_look_at_are_not_made_of_what_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise_image(20, 30)).save(tmp_path / "a.png")
    monkeypatch.setattr(enlarge, "MAX_LOOKED_AT", 9599)
    with pytest.raises(UserError, match="are for pictures of up to 9,599 pixels, not 9,600; leave them out"):
        drawn(tmp_path / "a.png", tmp_path / "out", Wanted(extras=["sheet"]))
    assert not list((tmp_path / "out").iterdir())
    drawn(tmp_path / "a.png", tmp_path / "out")


def test_a_disk_that_is_too_small_is_named_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise_image(20, 30)).save(tmp_path / "a.png")
    usage = type("Usage", (), {"free": 2879})
    monkeypatch.setattr("srflow_plugin.applications.batch.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"the picture needs at least .* are free; choose another disk"):
        drawn(tmp_path / "a.png", tmp_path / "out")


@pytest.mark.slow
def test_an_interrupted_picture_leaves_no_half_file(tmp_path: Path) -> None:
    Image.fromarray(noise_image(600, 600)).save(tmp_path / "a.png")
    command = [sys.executable, "-m", "srflow_plugin", "upscale", "a.png", "-o", "out", "--tile", "32"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "tile" not in process.stderr.readline(400):
        assert process.poll() is None
    while not list(tmp_path.glob("out/*.unfinished")):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, lines = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in lines
    assert not list(tmp_path.glob("out/*.png*"))
