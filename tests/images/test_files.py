"""Image files of eight bits, in and out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from srflow_plugin.errors import UserError
from srflow_plugin.images.files import find_images, read_image, write_image
from tests.helpers import noise_image, opencv_image


def test_images_of_a_folder_are_sorted_and_others_left_out(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpeg", "c.txt", "d"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in find_images(tmp_path)] == ["a.jpeg", "b.PNG"]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".TIFF"])
def test_pixels_are_rgb_and_come_back(tmp_path: Path, suffix: str) -> None:
    pixels = noise_image(5, 7)
    path = tmp_path / f"a{suffix}"
    write_image(path, pixels)
    assert np.array_equal(read_image(path), pixels)
    assert np.array_equal(opencv_image(path)[..., ::-1], pixels)  # OpenCV's are BGR
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_grey_and_palette_images_become_rgb(tmp_path: Path) -> None:
    grey = noise_image(5, 7)[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    for name in ("grey", "palette"):
        assert np.array_equal(read_image(tmp_path / f"{name}.png"), np.dstack([grey] * 3))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_turned_photograph_is_upright(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    path = tmp_path / f"a{suffix}"
    Image.fromarray(cv2.resize(noise_image(3, 4), (32, 24))).save(path, exif=exif, quality=100, subsampling=0)
    with Image.open(path) as stored:
        turned = np.asarray(stored)[::-1].transpose(1, 0, 2)
    assert np.array_equal(read_image(path), turned)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_image(path, noise_image(5, 7))
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_image(path, np.zeros((2, 2, 7)))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2.imwrite(str(tmp_path / "deep.png"), noise_image(5, 7).astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "deep.tif"), noise_image(5, 7).astype(np.uint16) * 257)
    Image.fromarray(noise_image(5, 7)).convert("RGBA").save(tmp_path / "alpha.png")
    write_image(tmp_path / "whole.png", noise_image(50, 70))
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-500])
    (tmp_path / "text.png").write_text("text")
    (tmp_path / "folder.png").mkdir()
    for name, message in [
        ("nowhere.png", "does not exist; correct the path"),
        ("folder.png", "cannot be read: Is a directory"),
        ("text.png", "is not an image that can be read"),
        ("cut.png", "cannot be read"),
        ("deep.png", "has 16 bits a channel; convert it to 8"),
        ("deep.tif", "has 16 bits a channel; convert it to 8"),
        ("alpha.png", "has an alpha channel; flatten it"),
    ]:
        with pytest.raises(UserError) as error:
            read_image(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name} {message}") and "\n" not in str(error.value), name
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    with pytest.raises(UserError, match="has more than 3,000 pixels; cut it"):
        read_image(tmp_path / "whole.png")


def test_an_image_that_lies_on_its_side_is_read_upright(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png"), np.rot90(np.asarray(image), -1))
