"""Photographs of every kind keep their pixels and what belongs to them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from srflow_plugin.errors import UserError
from srflow_plugin.images.files import read_stamp
from srflow_plugin.images.photographs import Photograph, from_array, from_pillow
from srflow_plugin.images.rows import read_photograph
from srflow_plugin.images.writing import write_photograph
from tests.helpers import noise_image, opencv_image

ORIENTATION = 0x0112


def noise(channels: int, bits: int) -> np.ndarray:
    """Make noise: (5, 7) or (5, 7, channels)."""
    shape = (5, 7) if channels == 1 else (5, 7, channels)
    dtype = np.uint8 if bits == 8 else np.uint16
    return np.random.default_rng(channels).integers(0, 2**bits, shape, dtype=dtype)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_pixels_go_through_a_file(tmp_path: Path, channels: int, bits: int, order: Any) -> None:
    pixels = np.asarray(noise(channels, bits), order=order)
    photograph = from_array(pixels)
    assert photograph.bits == bits and photograph.is_grey == (channels < 3)
    assert (photograph.alpha is not None) == (channels in (2, 4))
    assert photograph.rgb.dtype == np.float32 and photograph.rgb.shape == (5, 7, 3)
    write_photograph(tmp_path / "a.png", photograph)
    again = read_photograph(tmp_path / "a.png").quantised()
    assert np.array_equal(again, pixels)
    theirs = opencv_image(tmp_path / "a.png")  # another decoder sees the same
    if channels == 2:
        theirs = theirs[..., [0, 3]]
    elif channels > 2:
        theirs = cv2.cvtColor(theirs, cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGRA2RGBA)
    assert theirs.dtype == pixels.dtype and np.array_equal(theirs, pixels)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("bits", [8, 16])
def test_enlarged_pixels_are_clipped_and_of_the_same_kind(tmp_path: Path, bits: int) -> None:
    photograph = from_array(noise(4, bits))
    view = np.linspace(-0.5, 1.5, 3 * 40 * 56, dtype=np.float32).reshape(3, 40, 56)
    larger = photograph.with_pixels(view.transpose(1, 2, 0), np.full((40, 56), 2.0, np.float32))  # as of a tensor
    write_photograph(tmp_path / "a.png", larger)
    result = read_photograph(tmp_path / "a.png")
    assert result.bits == bits and result.rgb.shape == (40, 56, 3)
    assert result.alpha is not None and (result.alpha == 1).all()
    largest = 2**bits - 1
    assert np.abs(result.rgb - view.transpose(1, 2, 0).clip(0, 1)).max() <= 0.501 / largest


def test_a_grey_photograph_stays_grey() -> None:
    photograph = from_array(noise(1, 8))
    coloured = photograph.with_pixels(np.dstack([np.full((2, 2), level, np.float32) for level in (0, 0.3, 0.6)]), None)
    assert coloured.quantised().shape == (2, 2) and (coloured.quantised() == round(0.3 * 255)).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_profile_and_exif_go_through_a_file(tmp_path: Path, bits: int) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    write_photograph(tmp_path / "a.png", from_array(noise(3, bits), profile, exif.tobytes()))
    image = Image.open(tmp_path / "a.png")
    assert image.info["icc_profile"] == profile and image.getexif()[0x010F] == "a camera"
    again = read_photograph(tmp_path / "a.png")
    assert again.icc_profile == profile and again.exif is not None


@pytest.mark.parametrize(
    ("mode", "channels"),
    [
        ("1", 1),
        ("L", 1),
        ("LA", 2),
        ("P", 3),
        ("PA", 4),
        ("RGB", 3),
        ("RGBA", 4),
        ("CMYK", 3),
        ("YCbCr", 3),
        ("HSV", 3),
    ],
)
def test_every_mode_of_pillow_is_taken(mode: str, channels: int) -> None:
    image = Image.fromarray(noise_image(4, 6)).convert("RGBA" if mode == "PA" else "RGB")
    pixels = from_pillow(image.convert(mode)).quantised()
    assert pixels.dtype == np.uint8 and pixels.shape == ((4, 6) if channels == 1 else (4, 6, channels))


def test_sixteen_bit_grey_and_whole_numbers_are_taken() -> None:
    deep = noise(1, 16)
    for pixels in (deep, deep.astype(np.int32), (deep / 65535).astype(np.float32)):
        image = Image.fromarray(pixels)
        assert np.array_equal(from_pillow(image).quantised(), deep), image.mode


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((4, 6), -1, np.int32), "32 bit whole numbers has no known range"),
        (np.full((4, 6), 200, np.int32), "32 bit whole numbers has no known range"),  # of 255, of 65535?
        (np.full((4, 6), 2**16, np.int32), "32 bit whole numbers has no known range"),
        (np.full((4, 6), 255, np.float32), r"must lie in 0 \.\.\. 1, not 255 \.\.\. 255"),
        (np.full((4, 6), np.nan, np.float32), r"must lie in 0 \.\.\. 1"),
        (np.full((4, 6), -0.1, np.float32), r"must lie in 0 \.\.\. 1"),
    ],
)
def test_numbers_of_no_known_range_are_refused(pixels: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        from_pillow(Image.fromarray(pixels))
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=message) as error:
        read_photograph(tmp_path / "a.tif")
    assert str(tmp_path / "a.tif") in str(error.value)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_upright_and_says_so(tmp_path: Path, orientation: int, bits: int) -> None:
    pixels, exif = noise(3, bits), Image.Exif()
    exif[ORIENTATION] = orientation
    write_photograph(tmp_path / "a.png", from_array(pixels, exif=exif.tobytes()))
    photograph = read_photograph(tmp_path / "a.png")
    turns = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: pixels[::-1].transpose(1, 0, 2),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: pixels[:, ::-1].transpose(1, 0, 2),
    }
    assert np.array_equal(photograph.quantised(), turns[orientation])
    write_photograph(tmp_path / "b.png", photograph)
    assert Image.open(tmp_path / "b.png").getexif()[ORIENTATION] == 1


def test_deep_colour_needs_opencv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), noise(3, 16))
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(
        UserError, match=r"a\.png: it has 16 bits a channel, which needs OpenCV: pip install opencv-python"
    ):
        read_photograph(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((4, 6, 5), np.uint8), "is not understood"),
        (np.zeros(4, np.uint8), "is not understood"),
        (np.zeros((4, 6), np.int64), "int64 is not understood"),
        (np.zeros((0, 6), np.uint8), "has no pixels"),
        (np.full((4, 6), 1.5), "must lie in 0"),
        (np.full((4, 6), np.nan), "must lie in 0"),
    ],
)
def test_arrays_that_are_no_image_are_named(pixels: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_array(pixels)


def test_a_float_array_becomes_sixteen_bit() -> None:
    photograph: Photograph = from_array(np.linspace(0, 1, 24).reshape(4, 6))
    assert photograph.bits == 16 and photograph.quantised().dtype == np.uint16


@pytest.mark.parametrize("bits", [8, 16])
def test_files_say_what_they_were_made_with(tmp_path: Path, bits: int) -> None:
    photograph = from_array(noise(3, bits))
    path = tmp_path / "a.png"
    write_photograph(path, photograph, "made so")
    assert read_stamp(path) == Image.open(path).info["srflow"] == "made so"
    assert np.array_equal(read_photograph(path).rgb, photograph.rgb)
    write_photograph(path, photograph)
    assert read_stamp(path) is None
    path.write_bytes(path.read_bytes()[:30])
    assert read_stamp(path) is None and read_stamp(tmp_path / "none.png") is None
