"""Image files from top to bottom: what comes in bands is what the whole file holds."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from srflow_plugin.errors import UserError
from srflow_plugin.images import rows
from srflow_plugin.images.photographs import BLED, Photograph, bled, from_array, from_pillow
from srflow_plugin.images.rows import Rows, open_rows, read_photograph, rows_of
from srflow_plugin.images.writing import write_photograph
from tests.helpers import noise_image


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads PNG files of any size row by row, in small bands."""
    monkeypatch.setattr(rows, "STREAMED_FROM", 0)
    monkeypatch.setattr(rows, "ROWS_READ", 8)


def joined(opened: Rows) -> np.ndarray:
    return np.concatenate([band.quantised() for band in opened.bands()])


RGBA = np.dstack([noise_image(37, 23), noise_image(37, 23)[..., :1]])
IMAGES: dict[str, Callable[[], Image.Image]] = {
    "grey": lambda: Image.fromarray(RGBA[..., 0]),
    "grey with alpha": lambda: Image.fromarray(RGBA[..., :2], "LA"),
    "colour": lambda: Image.fromarray(RGBA[..., :3]),
    "alpha": lambda: Image.fromarray(RGBA),
    "palette": lambda: Image.fromarray(RGBA[..., :3]).quantize(200),
    "16 bit grey": lambda: Image.fromarray(RGBA[..., 0].astype(np.uint16) * 257 + 7),
}


@pytest.mark.usefixtures("streamed")
@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("level", [0, 6, 9])
def test_bands_of_a_png_file_are_its_pixels(tmp_path: Path, kind: str, level: int) -> None:
    image = IMAGES[kind]()
    image.save(tmp_path / "a.png", compress_level=level)  # of which each filters lines in its own way
    opened = open_rows(tmp_path / "a.png")
    assert (opened.height, opened.width) == (37, 23) and len(list(opened.bands())) == 5
    assert np.array_equal(joined(opened), from_pillow(image).quantised())
    assert np.array_equal(joined(opened), joined(opened))  # once more from the top


@pytest.mark.usefixtures("streamed")
def test_what_belongs_to_the_image_comes_with_each_band(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    IMAGES["colour"]().save(tmp_path / "a.png", exif=exif, icc_profile=b"profile" * 99, transparency=(1, 2, 3))
    for band in open_rows(tmp_path / "a.png").bands():
        assert band.icc_profile == b"profile" * 99 and band.exif == exif.tobytes() and band.alpha is not None


@pytest.mark.usefixtures("streamed")
def test_a_png_file_that_must_be_turned_is_read_whole(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    IMAGES["colour"]().save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(joined(open_rows(tmp_path / "a.png")), np.rot90(RGBA[..., :3], -1))


@pytest.mark.usefixtures("streamed")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[: len(data) // 2], "it is truncated"),
        (lambda data: data[:1000] + bytes(40) + data[1040:], "cannot be read: "),
        (lambda data: data[:30], "cannot be read: "),
    ],
)
def test_damage_shows_when_its_rows_are_read(tmp_path: Path, change: Callable[[bytes], bytes], message: str) -> None:
    IMAGES["colour"]().save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(change((tmp_path / "a.png").read_bytes()))
    with pytest.raises(UserError, match=message) as error:
        joined(open_rows(tmp_path / "a.png"))
    assert str(tmp_path / "a.png") in str(error.value)


def test_an_image_that_does_not_fit_is_refused_and_a_png_file_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "a.bmp"):
        IMAGES["colour"]().save(tmp_path / name)
    with pytest.raises(UserError, match="has 23 x 37 pixels, more than 850; --max-pixels raises that"):
        open_rows(tmp_path / "a.png", max_pixels=850)
    assert open_rows(tmp_path / "a.png", max_pixels=851).height == 37
    monkeypatch.setattr(rows, "available_bytes", lambda: 1000)
    monkeypatch.setattr(rows, "STREAMED_FROM", 0)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert joined(open_rows(tmp_path / "a.png")).shape == (37, 23, 3)
    with pytest.raises(UserError, match="save it as PNG, which is read row by row"):
        open_rows(tmp_path / "a.bmp")
    assert Image.MAX_IMAGE_PIXELS == 10


def frames_of(kind: str, path: Path) -> None:
    first, second = Image.fromarray(noise_image(9, 12)), Image.fromarray(noise_image(9, 12, 1))
    first.save(path, kind, save_all=True, append_images=[second])


NOTES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a.gif": (lambda path: frames_of("GIF", path), "it has 2 frames, of which the first is taken"),
    "a.tif": (lambda path: frames_of("TIFF", path), "it has 2 frames, of which the first is taken"),
    "a.webp": (lambda path: frames_of("WEBP", path), "it has 2 frames, of which the first is taken"),
    "a.png": (lambda path: frames_of("PNG", path), "it has 2 frames, of which the first is taken"),
    "a.jpg": (
        lambda path: Image.fromarray(noise_image(9, 12)).convert("CMYK").save(path, icc_profile=b"profile"),
        "its colours (CMYK) become RGB, without their profile",
    ),
    "cut.jpg": (
        lambda path: Image.fromarray(noise_image(9, 12)).save(path, exif=b"Exif\0\0II*\0"),
        "its EXIF cannot be read and is left out",
    ),
}


@pytest.mark.parametrize("name", NOTES)
def test_what_is_left_out_is_said(tmp_path: Path, name: str) -> None:
    write, note = NOTES[name]
    write(tmp_path / name)
    assert open_rows(tmp_path / name).notes == [note]


def test_what_is_no_image_is_called_what_it_is(tmp_path: Path) -> None:
    contents = {
        b"": "it is empty",
        b"<html>": "it is a text or a page",
        b"version https://git-lfs.github.com/spec/v1": "it is a Git LFS pointer; run git lfs pull",
        b"\0\5\x16\7": "is not an image that can be read",
    }
    for content, message in contents.items():
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(UserError, match=message):
            open_rows(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"b\.png does not exist"):
        open_rows(tmp_path / "b.png")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        open_rows(tmp_path)


def test_numbers_of_all_kinds_keep_their_depth(tmp_path: Path) -> None:
    deep = noise_image(9, 12).astype(np.uint16) * 257 + 3
    for channels in (1, 2, 3, 4):
        pixels = np.dstack([deep, deep[..., :1]])[..., :channels]
        write_photograph(tmp_path / "a.png", from_array(pixels))
        again = read_photograph(tmp_path / "a.png")
        assert np.array_equal(np.atleast_3d(again.quantised()), pixels) and again.channels == channels
    cv2.imwrite(str(tmp_path / "a.tif"), deep)
    assert np.array_equal(read_photograph(tmp_path / "a.tif").quantised(), deep[..., ::-1])


def square(colour: int = 255) -> Photograph:
    """Make a square of a colour on transparent black."""
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[12:28, 12:28] = (colour, colour, colour, 255)
    return from_array(pixels)


def test_colour_goes_out_into_what_is_transparent() -> None:
    photograph = square(200)
    colours = bled(photograph)
    near = np.zeros((40, 40), bool)
    near[max(0, 12 - BLED + 4) : 28 + BLED, max(0, 12 - BLED + 4) : 28 + BLED] = True
    np.testing.assert_allclose(colours[near], 200 / 255, rtol=1e-5)
    half = photograph._replace(alpha=np.float32(0.5) * np.asarray(photograph.alpha))
    np.testing.assert_allclose(bled(half)[12:28, 12:28], photograph.rgb[12:28, 12:28], rtol=1e-5)
    nothing = photograph._replace(alpha=np.zeros_like(photograph.alpha))
    assert np.array_equal(bled(nothing), photograph.rgb)
    assert bled(photograph._replace(alpha=None)) is not None


@pytest.mark.parametrize("size", [8, 16, 100])
def test_bands_bleed_as_the_whole(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(rows, "ROWS_READ", size)
    alpha = (noise_image(40, 30)[..., 0] > 250).astype(np.float32)
    photograph = from_array(noise_image(40, 30))._replace(alpha=alpha)
    parts = list(rows_of(photograph).opaque_bands())
    assert np.array_equal(np.concatenate([own for _, own in parts if own is not None]), alpha)
    whole, banded = bled(photograph), np.concatenate([colours for colours, _ in parts])
    if size >= BLED:
        np.testing.assert_allclose(banded, whole, atol=1e-6)
    else:
        assert np.abs(banded - whole).mean() < 0.1


def test_a_file_is_read_as_a_photograph_of_its_own(tmp_path: Path) -> None:
    data = BytesIO()
    Image.fromarray(noise_image(600, 5)).save(data, "BMP")
    (tmp_path / "a.bmp").write_bytes(data.getvalue())
    assert np.array_equal(read_photograph(tmp_path / "a.bmp").quantised(), noise_image(600, 5))


def test_pages_without_end_are_not_counted_to_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_FRAMES", 3)
    for pages, told in (
        (1, []),
        (2, ["it has 2 frames, of"]),
        (3, ["it has 3 or more frames, of"]),
        (9, ["it has 3 or"]),
    ):
        first, *others = [Image.fromarray(noise_image(4, 5, page)) for page in range(pages)]
        first.save(tmp_path / "a.tif", save_all=True, append_images=others)
        opened = open_rows(tmp_path / "a.tif")
        assert [note[: len(start)] for note, start in zip(opened.notes, told, strict=True)] == told
        assert np.array_equal(joined(opened), noise_image(4, 5, 0))
