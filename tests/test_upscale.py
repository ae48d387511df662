"""srflow upscale and srflow_plugin.upscale: every kind of image that people have."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from skimage.data import chelsea

import srflow_plugin
from srflow_plugin import upscaling
from srflow_plugin.cli.main import srflow_command
from srflow_plugin.data.photographs import read_photograph
from srflow_plugin.errors import UserError
from srflow_plugin.pictures import bicubic_upscale

ORIENTATION = 0x0112


class Enlarger(torch.nn.Module):
    """What looks like a trained network and is quick: bicubic upscaling with noise."""

    scale = 4

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def sample(
        self, lq: torch.Tensor, temperature: float, num_samples: int, seed: int, *others: Any, **options: Any
    ) -> torch.Tensor:
        image = bicubic_upscale(lq, self.scale)
        noise = torch.randn(num_samples, *image.shape, generator=torch.Generator().manual_seed(seed))
        return image + 0.05 * temperature * noise


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with two photographs and a network."""
    monkeypatch.chdir(tmp_path)
    image = np.ascontiguousarray(chelsea()[100:112, 100:115])
    Path("in").mkdir()
    for name in ("a.png", "b.jpg"):
        Image.fromarray(image).save(f"in/{name}")
    Path("net.pth").write_bytes(b"stands for a network")
    monkeypatch.setattr(upscaling, "load_network", lambda path, precision: Enlarger())
    upscaling._loaded.cache_clear()
    yield tmp_path
    upscaling._loaded.cache_clear()


def run(*arguments: str) -> int:
    return srflow_command(["upscale", *arguments, "--checkpoint", "net.pth"])


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("srflow: error: ")]
    assert stop.value.code == 2 and len(lines) == 1
    return lines[0]


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


def test_one_file_to_one_file_and_nothing_is_overwritten(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("in/a.png", "-o", "big.png", "--temperature", "0") == 0
    before = Path("big.png").read_bytes()
    assert "big.png exists; give --overwrite or another -o" in refusal(capsys, "in/a.png", "-o", "big.png")
    assert Path("big.png").read_bytes() == before
    assert run("in/a.png", "-o", "big.png", "--overwrite", "--seed", "1") == 0
    assert Path("big.png").read_bytes() != before
    assert run("in/b.jpg", "-o", "new/folder") == 0 and Path("new/folder/b.png").exists()
    shutil.copy("in/b.jpg", "in/a.jpg")
    assert "in/a.jpg and in/a.png would both become out/a.png" in refusal(capsys, "in", "-o", "out")
    assert not Path("out").exists()
    assert "choose another folder" in refusal(capsys, "in/a.png", "-o", "in", "--overwrite")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png", "-o", "out"], "nowhere.png does not exist"),
        (["x*.png", "-o", "out"], "no file matches x*.png"),
        (["net.pth", "-o", "out"], "net.pth is not an image that can be read"),
        (["in", "-o", "one.png"], "one.png is one file"),
        (["in/a.png", "-o", "one.jpg"], "one.jpg must end in .png"),
        (["in/a.png", "-o", "no/one.png"], "no is not a folder"),
        (["in/a.png", "-o", "net.pth"], "net.pth is not a folder"),
        (["in/a.png", "-o", "out", "--scale", "8"], "net.pth is a network of scale 4, not 8"),
        (["in/a.png", "-o", "out", "--temperature", "-1"], "--temperature must be 0 or more"),
        (["in/a.png", "-o", "out", "--num-samples", "0"], "--num-samples"),
        (["in/a.png", "-o", "out", "--std"], "--mean and --std need --num-samples 2"),
        (["in/a.png", "-o", "out", "--temperature", "0", "--num-samples", "2"], "all samples are equal"),
        (["empty", "-o", "out"], "empty has no images"),
    ],
)
def test_mistakes_get_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    Path("empty").mkdir()
    assert message in refusal(capsys, *arguments)
    assert not list(Path().glob("out/*"))


def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_orientation_profile_and_exif_are_kept(place: Path) -> None:
    image = Image.open("in/a.png")
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned by 90 degrees
    exif[0x010F] = "a camera"
    image.save("turned.jpg", quality=100, subsampling=0, exif=exif, icc_profile=profile())
    assert run("turned.jpg", "-o", "out") == 0
    result = Image.open("out/turned.png")
    assert result.size == (4 * image.height, 4 * image.width)
    assert result.info["icc_profile"] == profile()
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


KINDS = {
    "grey": ("L", np.uint8),
    "black and white": ("L", np.uint8),
    "grey with alpha": ("RGBA", np.uint8),
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
    result = cv2.imread("out/image.png", cv2.IMREAD_UNCHANGED)
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
    assert "cut.png cannot be read" in refusal(capsys, "cut.png", "-o", "out")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "a.png has more than 100 pixels" in refusal(capsys, "in/a.png", "-o", "out")


def test_python_takes_and_gives_the_same_kind(place: Path) -> None:
    rgb = chelsea()[100:106, 100:107]
    lq = torch.from_numpy(rgb.transpose(2, 0, 1) / np.float32(255))
    expected = Enlarger().sample(lq[None], 0.8, 2, 3).clamp(0, 1)
    options: dict[str, Any] = {"num_samples": 2, "seed": 3, "checkpoint": "net.pth"}

    tensors = srflow_plugin.upscale(lq, **options)
    assert tensors.shape == (2, 3, 24, 28) and torch.equal(tensors, expected[:, 0])
    batch = srflow_plugin.upscale(lq[None].double(), **options)
    assert batch.shape == (2, 1, 3, 24, 28) and batch.dtype == torch.float64
    pixels = (255 * expected[:, 0]).round().numpy().transpose(0, 2, 3, 1)
    arrays = srflow_plugin.upscale(rgb, **options)
    assert arrays.dtype == np.uint8 and np.array_equal(arrays, pixels)
    floats = srflow_plugin.upscale(rgb / 255, **options)
    assert floats.dtype == np.float64 and np.abs(255 * floats - pixels).max() <= 0.501
    assert srflow_plugin.upscale(rgb[..., 0], **options).shape == (2, 24, 28)
    assert srflow_plugin.upscale(rgb[..., :1], **options).shape == (2, 24, 28, 1)
    assert srflow_plugin.upscale(rgb[..., :2], **options).shape == (2, 24, 28, 2)
    pictures = srflow_plugin.upscale(Image.fromarray(rgb), **options)
    assert [picture.mode for picture in pictures] == ["RGB"] * 2 and np.array_equal(np.asarray(pictures[1]), pixels[1])

    for bad, message in (
        ("a string", "must be a numpy array"),
        (rgb.astype(np.int64), "int64 is not understood"),
        (rgb.astype(np.float32), "must lie in 0"),
        (rgb[:0], "has no pixels"),
        (lq[:2], "a tensor must be float"),
    ):
        with pytest.raises(UserError, match=message):
            srflow_plugin.upscale(bad, **options)
    with pytest.raises(UserError, match="scale 3: the package has networks for 4"):
        srflow_plugin.upscale(rgb, scale=3)
    with pytest.raises(UserError, match="precision auto, float32"):
        srflow_plugin.upscale(rgb, precision="float16")  # type: ignore[arg-type]


def test_a_network_is_loaded_once_and_anew_when_its_file_changes(place: Path) -> None:
    first = upscaling.find_network(None, "net.pth", "cpu")
    assert upscaling.find_network(None, "net.pth", "cpu") is first
    os.utime("net.pth", (0, 0))
    assert upscaling.find_network(None, "net.pth", "cpu") is not first
