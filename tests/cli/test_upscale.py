"""srflow upscale: files in, files out, every kind of image that people have."""

from __future__ import annotations

import inspect
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from skimage.data import chelsea

from srflow_plugin import bicubic_downscale
from srflow_plugin.applications.upscale import upscale
from srflow_plugin.checkpoints.shipped import SHIPPED
from srflow_plugin.cli.main import srflow_command
from srflow_plugin.files import UNFINISHED
from srflow_plugin.images.files import read_stamp
from srflow_plugin.images.resize import bicubic_upscale
from srflow_plugin.images.rows import read_photograph
from tests.helpers import ROOT, Enlarger, noise_image, noisy, opencv_image, refusal, small_network

ORIENTATION = 0x0112


def run(*arguments: str) -> int:
    return srflow_command(["upscale", *arguments, "--checkpoint", "net.pth"])


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    return refusal(capsys, "upscale", *arguments, "--checkpoint", "net.pth")


def test_folders_patterns_and_everything_beside(place: Path) -> None:
    assert run("in", "in/*.png", "-o", "out", "--num-samples", "3", "--mean", "--std", "--sheet") == 0
    kinds = ("sample0", "sample1", "sample2", "mean", "std", "sheet")
    assert {path.name for path in Path("out").iterdir()} == {f"{name}_{kind}.png" for name in "ab" for kind in kinds}
    samples = [np.asarray(Image.open(f"out/a_sample{number}.png")).astype(float) for number in range(3)]
    assert samples[0].shape == (48, 60, 3) and not np.array_equal(samples[0], samples[1])
    mean = np.asarray(Image.open("out/a_mean.png")).astype(float)
    assert np.abs(mean - np.mean(samples, axis=0)).max() <= 1
    lq = torch.from_numpy(np.asarray(Image.open("in/a.png")).transpose(2, 0, 1) / np.float32(255))[None]
    expected = Enlarger().sample(lq, 0.8, 3, 0)[1, 0].clamp(0, 1)
    assert np.array_equal(samples[1], (255 * expected).round().numpy().transpose(1, 2, 0))


def test_flat_areas_have_less_grain(place: Path) -> None:
    Image.fromarray(np.full((12, 15, 3), 100, np.uint8)).save("flat.png")
    for share in ("0", "0.5", "1"):
        assert run("flat.png", "in/a.png", "-o", share, "--adaptive", share) == 0
    assert run("flat.png", "in/a.png", "-o", "off") == 0
    stds = [np.asarray(Image.open(f"{folder}/flat.png")).std() for folder in ("0", "0.5", "1", "off")]
    assert stds[0] == 0 and stds[1] == pytest.approx(stds[3] / 2, rel=0.05) and stds[2] == stds[3] > 5
    for name in ("a", "flat"):
        assert np.array_equal(opencv_image(Path(f"1/{name}.png")), opencv_image(Path(f"off/{name}.png")))


def test_one_file_to_one_file_and_nothing_is_overwritten(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("in/a.png", "-o", "big.png", "--temperature", "0") == 0
    before = Path("big.png").read_bytes()
    assert "big.png exists; give --overwrite or another -o" in refused(capsys, "in/a.png", "-o", "big.png")
    assert Path("big.png").read_bytes() == before
    assert run("in/a.png", "-o", "big.png", "--overwrite", "--seed", "1") == 0
    assert Path("big.png").read_bytes() != before
    assert run("in/b.jpg", "-o", "new/folder") == 0 and Path("new/folder/b.png").exists()
    shutil.copy("in/b.jpg", "in/a.jpg")
    assert "in/a.jpg and in/a.png would both become out/a.png" in refused(capsys, "in", "-o", "out")
    assert not Path("out").exists()
    assert "choose another folder" in refused(capsys, "in/a.png", "-o", "in", "--overwrite")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png", "-o", "out"], "nowhere.png does not exist"),
        (["x*.png", "-o", "out"], "no file matches x*.png"),
        (["net.pth", "-o", "out"], "net.pth is not an image that can be read"),
        (["in", "-o", "one.png"], "one.png is one file"),
        (["in/a.png", "-o", "one.gif"], "one.gif must end in .png, .jpg, .webp, .tiff"),
        (["in/a.png", "-o", "one.jpg", "--format", "webp"], "one.jpg does not end in .webp"),
        (["in/a.png", "-o", "one.jpg", "--suffix", "_x4"], "one.jpg has its name; --suffix is for folders"),
        (["in/a.png", "-o", "out", "--suffix", "../x"], "--suffix ../x would lead to another folder"),
        (["in/a.png", "-o", "out", "--quality", "90"], "--quality is for --format jpg and webp"),
        (["in/a.png", "-o", "out", "--format", "jpg", "--quality", "0"], "--quality: 0 must be from 1 to below 101"),
        (["in/a.png", "-o", "out", "--outscale", "5"], "outscale must be from 0.1 to the network's scale, 4, not 5"),
        (["in/a.png", "-o", "out", "--outscale", "nan"], "--outscale: nan must be 0 or more"),
        (["in/a.png", "-o", "out", "--outscale", "0"], "outscale must be from 0.1"),
        (["in/a.png", "-o", "out", "--num-samples", "2", "--only", "2"], "--only 2 is none of 2 samples"),
        (["in/a.png", "-o", "out", "--temperature", "nan"], "--temperature: nan must be 0 or more"),
        (["in/a.png", "-o", "out", "--temperature", "inf"], "--temperature: inf must be 0 or more"),
        (["in/a.png", "-o", "out", "--only", "-1"], "--only: -1 must be 0 or more"),
        (["in/a.png", "-o", "out", "--only", "1", "--num-samples", "2", "--std"], "and no --only"),
        (["in/a.png", "-o", "out", "--max-pixels", "100"], "in/a.png has 15 x 12 pixels, more than 100; --max-pixels"),
        (["in/a.png", "-o", "/proc/out"], "/proc/out: "),
        (["in/a.png", "-o", "no/one.png"], "no is not a folder"),
        (["in/a.png", "-o", "net.pth"], "net.pth is not a folder"),
        (["in/a.png", "-o", "out", "--scale", "8"], "net.pth is a network of scale 4, not 8"),
        (["in/a.png", "-o", "out", "--temperature", "-1"], "argument --temperature: -1 must be 0 or more"),
        (["in/a.png", "-o", "out", "--adaptive", "1.5"], "argument --adaptive: 1.5 must be from 0 to 1"),
        (["in/a.png", "-o", "out", "--adaptive", "nan"], "argument --adaptive: nan must be 0 or more"),
        (["in/a.png", "-o", "out", "--adaptive", "half"], "argument --adaptive: invalid number value: 'half'"),
        (["in/a.png", "-o", "out", "--temperature", "0", "--adaptive", "0.5"], "leave --adaptive out"),
        (["in/a.png", "-o", "out", "--num-samples", "0"], "argument --num-samples: 0 must be 1 or more"),
        (
            ["in/a.png", "-o", "out", "--num-samples", "two"],
            "argument --num-samples: invalid whole number value: 'two'",
        ),
        (["in/a.png", "-o", "out", "--tile", "0"], "argument --tile: 0 must be 1 or more"),
        (["in/a.png", "-o", "out", "--device", "gpu"], "device 'gpu' is not known"),
        (["in/a.png", "-o", "out", "--std"], "--mean and --std need --num-samples 2"),
        (["in/a.png", "-o", "out", "--temperature", "0", "--num-samples", "2"], "all samples are equal"),
        (["in/a.png", "-o", "out", "--temperature", "learned"], "this network has no learned prior, so that its"),
        (["in/a.png", "-o", "out", "--temperature", "learnt"], "argument --temperature: invalid temperature value"),
        (["in/a.png", "-o", "out", "--temperature", "learned", "--only", "1"], "at --temperature learned all samples"),
        (["empty", "-o", "out"], "empty has no images"),
    ],
)
def test_mistakes_get_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    Path("empty").mkdir()
    assert message in refused(capsys, *arguments)
    assert not list(Path().glob("out/*"))


def test_the_learned_prior_draws_one_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    network = small_network(prior_channels=4, scale_floor=0.3)
    with torch.no_grad():
        step = network.flow.levels[0].get_submodule("bijections.1.actnorm")
        step.get_parameter("bias").sub_(0.5)  # images around grey, which do not explode
    torch.save({"params": network.state_dict()}, "net.pth")
    lq = noise_image(6, 8)
    Image.fromarray(lq).save("a.png")
    assert run("a.png", "-o", "out", "--temperature", "learned", "--sheet", "--precision", "float32") == 0
    assert capsys.readouterr().err == ""
    assert {path.name for path in Path("out").iterdir()} == {"a.png", "a_sheet.png"}
    drawn = Image.open("out/a.png")
    expected = upscale(lq, "learned", checkpoint="net.pth", precision="float32")[0]
    assert np.array_equal(np.asarray(drawn), expected)
    assert not np.array_equal(expected, upscale(lq, 0, checkpoint="net.pth", precision="float32")[0])


def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_orientation_profile_and_exif_are_kept(place: Path) -> None:
    image = Image.open("in/a.png")
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned by 90 degrees
    exif[0x010F] = "a camera"
    icc_profile = profile()  # made once: it holds the second in which it was made
    image.save("turned.jpg", quality=100, subsampling=0, exif=exif, icc_profile=icc_profile)
    assert run("turned.jpg", "-o", "out") == 0
    result = Image.open("out/turned.png")
    assert result.size == (4 * image.height, 4 * image.width)
    assert result.info["icc_profile"] == icc_profile
    assert result.getexif()[0x010F] == "a camera" and result.getexif()[ORIENTATION] == 1
    upright = np.asarray(image).transpose(1, 0, 2)[:, ::-1].astype(float)
    small = np.asarray(result.resize(upright.shape[1::-1], Image.Resampling.BOX)).astype(float)
    assert np.corrcoef(small.ravel(), upright.ravel())[0, 1] > 0.9


def save(kind: str) -> tuple[str, Any]:
    """A file of some kind; its name, and the mode that Pillow gives it."""
    rgb = chelsea()[100:112, 100:115]
    grey = rgb[..., 1]
    alpha = np.linspace(0, 255, grey.size).reshape(grey.shape).astype(np.uint8)
    name = "image.png"
    if kind == "grey":
        Image.fromarray(grey).save(name)
    elif kind == "black and white":
        Image.fromarray(grey > 128).save(name)
    elif kind == "grey with alpha":
        Image.fromarray(np.dstack([grey, alpha]), "LA").save(name)
    elif kind == "alpha":
        Image.fromarray(np.dstack([rgb, alpha])).save(name)
    elif kind == "palette":
        Image.fromarray(rgb).quantize(16).save(name)
    elif kind == "cmyk":
        name = "image.jpg"
        Image.fromarray(rgb).convert("CMYK").save(name)
    elif kind == "16 bit":
        cv2.imwrite(name, (rgb.astype(np.uint16) * 257 + 3)[..., ::-1])
    elif kind == "16 bit tiff":
        name = "image.tif"
        cv2.imwrite(name, (rgb.astype(np.uint16) * 257 + 3)[..., ::-1])
    elif kind == "16 bit grey":
        cv2.imwrite(name, grey.astype(np.uint16) * 257 + 3)
    elif kind == "16 bit with alpha":
        cv2.imwrite(name, np.dstack([rgb[..., ::-1], alpha]).astype(np.uint16) * 257)
    elif kind == "webp":
        name = "image.webp"
        Image.fromarray(rgb).save(name)
    return name, rgb


KINDS: dict[str, tuple[str, Any]] = {
    "grey": ("L", np.uint8),
    "black and white": ("L", np.uint8),
    "grey with alpha": ("LA", np.uint8),
    "alpha": ("RGBA", np.uint8),
    "palette": ("RGB", np.uint8),
    "cmyk": ("RGB", np.uint8),
    "webp": ("RGB", np.uint8),
    "16 bit": ("RGB", np.uint16),
    "16 bit tiff": ("RGB", np.uint16),
    "16 bit grey": ("I;16", np.uint16),
    "16 bit with alpha": ("RGBA", np.uint16),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_comes_back_as_its_kind(place: Path, kind: str) -> None:
    name, rgb = save(kind)
    assert run(name, "-o", "out", "--temperature", "0") == 0
    result = opencv_image(Path("out/image.png"))
    mode, depth = KINDS[kind]
    assert Image.open("out/image.png").mode == mode or (depth == np.uint16 and mode != "I;16")
    assert result.dtype == depth and result.shape[:2] == (48, 60)
    largest = np.iinfo(depth).max
    if "alpha" in kind:
        expected = read_photograph(Path(name)).alpha
        assert expected is not None
        enlarged = bicubic_upscale(torch.from_numpy(expected)[None, None], 4)[0, 0].clamp(0, 1).numpy()
        assert np.abs(result[..., 3] / largest - enlarged).max() < 1 / largest
    colours = result[..., :3] if result.ndim == 3 else np.dstack([result] * 3)
    reference = rgb if "grey" not in kind and kind != "black and white" else np.dstack([rgb[..., 1]] * 3)
    if kind != "black and white":
        small = cv2.resize(colours.astype(np.float32) / largest, (15, 12), interpolation=cv2.INTER_AREA)[..., ::-1]
        assert np.corrcoef(small.ravel(), reference.ravel())[0, 1] > 0.8
    if depth == np.uint16:
        assert len(np.unique(result % 257)) > 50  # not 8 bit values in 16 bit clothes


def test_damaged_and_endless_files(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    Path("cut.png").write_bytes(Path("in/a.png").read_bytes()[:200])
    assert "cut.png cannot be read" in refused(capsys, "cut.png", "-o", "out")
    monkeypatch.setattr("srflow_plugin.images.rows.available_bytes", lambda: 1000)
    told = refused(capsys, "in/a.png", "-o", "out")
    assert "in/a.png needs 0.0 GiB of memory, of which 0.0 are free; save it as PNG" in told


def test_a_second_run_does_what_is_missing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["in", "-o", "out", "--num-samples", "2", "--mean"]
    assert run(*command) == 0
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path("out").iterdir()}
    Path("out/b_mean.png").unlink()
    capsys.readouterr()
    assert run(*command) == 0
    told = capsys.readouterr()
    assert told.err.startswith("1 of 2 are there and stay; --overwrite draws them anew\n") and "a_" not in told.out
    assert {path: path.read_bytes() for path in before} == {path: content for path, (content, _) in before.items()}
    assert Path("out/a_mean.png").stat().st_mtime_ns == before[Path("out/a_mean.png")][1]
    assert run(*command) == 0 and capsys.readouterr().err.startswith("2 of 2 are there")
    assert run(*command, "--overwrite") == 0 and run(*command) == 0
    assert Path("out/a_mean.png").stat().st_mtime_ns != before[Path("out/a_mean.png")][1]
    assert capsys.readouterr().err.endswith("2 of 2 are there and stay; --overwrite draws them anew\n")


@pytest.mark.parametrize(
    "change", ["--temperature 0.5", "--adaptive 0.5", "--seed 1", "--tile none", "--precision float32", "source", "net"]
)
def test_what_was_made_otherwise_is_not_taken_for_done(
    place: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    assert run("in/a.png", "-o", "out") == 0
    if change == "source":
        os.utime("in/a.png", (1, 1))
    if change == "net":
        Path("net.pth").write_bytes(b"stands for another")
    arguments = change.split() if change.startswith("--") else []
    told = refused(capsys, "in", "-o", "out", *arguments)
    assert "out/a.png exists, made of another image or with other settings; give --overwrite or another -o" in told
    shutil.copy("in/a.png", "out/a.png")
    assert "out/a.png exists; give --overwrite or another -o" in refused(capsys, "in", "-o", "out")


@pytest.mark.parametrize("fault", ["unreadable", "too large for the memory"])
def test_one_bad_image_does_not_end_the_rest(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    if fault == "unreadable":
        Path("in/a.png").write_bytes(Path("in/a.png").read_bytes()[:200])
        expected = "in/a.png cannot be read"
    else:
        Image.fromarray(np.zeros((5, 7, 3), np.uint8)).save("in/a.png")
        decode = Enlarger.decode

        def short_of_memory(self: Enlarger, latents: Any, lq: torch.Tensor) -> torch.Tensor:
            if lq.shape[-1] == 7:
                raise RuntimeError("out of memory\nby much")
            return decode(self, latents, lq)

        monkeypatch.setattr(Enlarger, "decode", short_of_memory)
        expected = "in/a.png cannot be drawn: out of memory"
    assert run("in", "-o", "out") == 1
    lines = capsys.readouterr().err.splitlines()
    assert sum(expected in line for line in lines) == 1 and "by much" not in lines
    assert lines[-1] == "srflow upscale: 1 of 2 images could not be drawn; they are named above"
    assert [path.name for path in Path("out").iterdir()] == ["b.png"]
    shutil.copy("in/b.jpg", "in/a.png")
    assert run("in", "-o", "out") == 0 and Path("out/a.png").exists()


# A process that notes what it draws; the first one may be killed, or never end, with an image in hand.
PROCESS = f"""
import os, signal, sys, time
from typing import Any
import torch
from torch import nn
from srflow_plugin.applications import upscale
from srflow_plugin.cli.main import srflow_command
from srflow_plugin.images.resize import bicubic_upscale
from srflow_plugin.sampling.draw import draw
from collections.abc import Sequence

{inspect.getsource(Enlarger)}

class Noting(Enlarger):
    def decode(self, latents, lq):
        with open("drawn", "a") as file:
            file.write(str(lq.shape[-1]) + "\\n")
        if os.environ.get("FATE") == "killed" and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(1000 if os.environ.get("FATE") == "slow" else 0.2)
        return super().decode(latents, lq)

upscale.load_network = lambda path, **settings: Noting()
while os.environ.get("FATE") == "behind" and os.environ["RANK"] == "1" and not os.path.exists("drawn"):
    time.sleep(0.05)  # until the other has counted what is there
sys.exit(srflow_command(["upscale", "in", "--checkpoint", "net.pth", *sys.argv[1:]]))
"""


@pytest.fixture
def eight(place: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Eight images, 20 to 27 pixels wide, and a script that draws them; the widths."""
    if os.name == "nt":
        pytest.skip("Windows has no such signals")
    shutil.rmtree("in")
    Path("in").mkdir()
    for width in range(20, 28):
        Image.fromarray(np.ascontiguousarray(chelsea()[:12, :width])).save(f"in/{width}.png")
    Path("process.py").write_text(PROCESS)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return [str(width) for width in range(20, 28)]


def drawn() -> list[str]:
    return Path("drawn").read_text().split() if Path("drawn").exists() else []


def assert_as_by_one_process(folder: str) -> None:
    assert run("in", "-o", "alone", "--overwrite") == 0
    names = [path.name for path in sorted(Path(folder).iterdir()) if path.suffix != UNFINISHED]  # of a killed process
    assert names == [path.name for path in sorted(Path("alone").iterdir())] and len(names) == 8
    for name in names:
        assert np.array_equal(opencv_image(Path(folder, name)), opencv_image(Path("alone", name)))


@pytest.mark.slow
def test_a_rank_that_is_killed_loses_what_it_had_in_hand(eight: list[str]) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    command = [*launcher, "process.py", "-o", "out"]
    done = subprocess.run(command, env={**os.environ, "FATE": "killed"}, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "exitcode  : -9" in done.stderr, done.stderr
    lost = drawn()
    assert "24" in lost and not Path("out/24.png").exists()
    there = len(list(Path("out").glob("*.png")))
    Path("drawn").unlink()
    done = subprocess.run(command, env={**os.environ, "FATE": "behind"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{there} of 8 are there and stay" in done.stderr or not there
    assert len(drawn()) == 8 - there and set(drawn()) <= {*eight}
    assert_as_by_one_process("out")


@pytest.mark.slow
def test_the_others_do_what_a_killed_process_leaves(eight: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    def start(rank: int, step: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        slurm = {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": step, "SLURM_PROCID": str(rank), "SLURM_NTASKS": "2"}
        command = [sys.executable, "process.py", "-o", "out", *arguments]
        return subprocess.Popen(command, env={**os.environ, **slurm, **environment})

    doomed = start(0, "0", FATE="slow")
    end = time.monotonic() + 120
    while drawn() != ["20"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    other = start(1, "0")
    while len(drawn()) < 8:
        assert time.monotonic() < end
        time.sleep(0.05)
    doomed.send_signal(signal.SIGKILL)
    assert other.wait(timeout=120) == 0 and doomed.wait() == -signal.SIGKILL
    assert drawn() == ["20", "24", "25", "26", "27", "21", "22", "23", "20"]
    assert "rank 1: out/24.png, out/25.png, out/26.png, out/27.png and 4 more" in capfd.readouterr().out
    assert_as_by_one_process("out")

    Path("drawn").unlink()
    processes = [start(rank, "1", "--overwrite", "--seed", "1") for rank in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert sorted(drawn()) == eight  # each by one of them


def test_one_command_gives_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(chelsea()[100:140, 100:150]).save("photo.jpg")
    assert srflow_command(["upscale", "photo.jpg", "-o", "out"]) == 0
    assert Image.open("out/photo.png").size == (200, 160)


@pytest.fixture
def mixed(place: Path) -> Path:
    """The folder ``in`` with a clean picture, a JPEG file, a noisy picture, and a JPEG's pixels in a PNG file."""
    shutil.rmtree("in")
    Path("in").mkdir()
    clean = bicubic_downscale(np.ascontiguousarray(chelsea()[:160, :160]), 4)
    Image.fromarray(clean).save("in/clean.png")
    Image.fromarray(clean).save("in/file.jpg", quality=72)
    Image.fromarray(noisy(clean, 0, 8)).save("in/noisy.png")
    Image.open("in/file.jpg").save("in/pixels.png")
    return place


def test_networks_without_a_prior_are_the_fault_of_no_picture(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "upscale", "in", "-o", "out", "--temperature", "learned")
    assert "srflow_x4 has no learned prior" in said and "has one" not in said


def test_of_candidates_the_one_that_has_a_prior_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(noise_image(8, 8)).save("a.png")
    said = refusal(capsys, "upscale", "a.png", "-o", "out", "--temperature", "learned")
    assert "srflow_x4_real has no learned prior" in said and "srflow_x4 has one: --checkpoint srflow_x4" in said


CHOSEN = {"clean": "srflow_x4", "file": "srflow_x4_real", "noisy": "srflow_x4_real", "pixels": "srflow_x4_real"}


def test_each_picture_chooses_its_network(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert srflow_command(["upscale", "in", "-o", "out"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "srflow_x4" in line]
    assert [line.rstrip() for line in lines] == [
        "in/clean.png: neither JPEG nor noise found: srflow_x4, the network for clean photographs",
        "in/file.jpg: JPEG of quality about 72: srflow_x4_real, the network for real photographs",
        "in/noisy.png: noise of about 7 grey levels: srflow_x4_real, the network for real photographs",
        "in/pixels.png: JPEG of quality about 72: srflow_x4_real, the network for real photographs",
        "srflow_x4 for 1 image, srflow_x4_real for 3 images; --network photo|real to choose",
    ]
    made = {name: (read_stamp(Path(f"out/{name}.png")) or "").split() for name in CHOSEN}
    assert {name: stamp[-1] for name, stamp in made.items()} == CHOSEN
    Path("out/noisy.png").unlink()
    assert srflow_command(["upscale", "in", "-o", "out"]) == 0  # what is missing, with the same network
    told = capsys.readouterr().err
    assert told.startswith("3 of 4 are there and stay") and "srflow_x4_real for 1 image; " in told
    assert (read_stamp(Path("out/noisy.png")) or "").split() == made["noisy"]
    told = refusal(capsys, "upscale", "in", "-o", "out", "--network", "real")
    assert "out/clean.png exists, made of another image or with other settings" in told


def test_a_single_picture_says_how_to_choose(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert srflow_command(["upscale", "in/file.jpg", "-o", "out.jpg"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("72: srflow_x4_real, the network for real photographs (--network photo|real to choose)")
    assert (read_stamp(Path("out.jpg")) or "").endswith(" srflow_x4_real")


@pytest.mark.parametrize("word", ["photo", "real"])
def test_a_network_that_is_named_is_taken(mixed: Path, capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert srflow_command(["upscale", "in", "-o", "out", "--network", word]) == 0
    assert "srflow_x4" not in capsys.readouterr().err
    assert {(read_stamp(path) or "").split()[-1] for path in Path("out").iterdir()} == {SHIPPED[word].name}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--network", "reel"], "argument --network: 'reel' is not known; did you mean real?"),
        (["--network", "real", "--checkpoint", "net.pth"], "network real and checkpoint net.pth are two answers"),
        (["--network", "face", "--scale", "4"], "network face is of scale 8, not 4; leave the scale out"),
        (["--network", "auto", "--scale", "8"], "network auto is of scale 4, not 8"),
        (["--outscale", "5"], "outscale must be from 0.1 to the network's scale, 4, not 5"),
        (["--device", "gpu"], "device 'gpu' is not known"),
        (["--checkpoint", "srflow_x4_reel"], "srflow_x4_reel does not exist; did you mean srflow_x4_real?"),
    ],
)
def test_networks_that_cannot_be(
    mixed: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in refusal(capsys, "upscale", "in", "-o", "out", *arguments)
    assert not list(Path().glob("out/*"))
