"""Image files written a band of rows at a time: other programs read them, and what they say is what was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from srflow_plugin.errors import UserError
from srflow_plugin.images.files import read_stamp
from srflow_plugin.images.rows import read_photograph
from srflow_plugin.images.writing import Layout, check_layout, eight_bit, file_format, picture_written
from tests.helpers import noise_image, opencv_image

HEIGHT, WIDTH = 53, 41


def pixels_of(channels: int, bits: int) -> np.ndarray:
    smooth = np.add.outer(3 * np.arange(HEIGHT), 2 * np.arange(WIDTH)) % 256
    waves = np.dstack([(smooth * (channel + 1)) % 256 for channel in range(channels)]).astype(np.uint8)
    pixels = waves if bits == 8 else waves.astype(np.uint16) * 257 + 3
    return pixels[..., 0] if channels == 1 else pixels


def exif() -> Any:
    made = Image.Exif()
    made[0x010F] = "a camera"
    made.get_ifd(0x8769)[0x829A] = (1, 60)
    made.get_ifd(0x8825)[1] = "N"
    return made


def write(path: Path, pixels: np.ndarray, band: int = 10, **layout: Any) -> None:
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    bits = 8 * pixels.dtype.itemsize
    with picture_written(path, Layout(pixels.shape[0], pixels.shape[1], channels, bits, **layout)) as put:
        for top in range(0, len(pixels), band):
            put(pixels[top : top + band])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
@pytest.mark.parametrize("band", [1, 16, 100])
def test_pixels_come_back_as_they_were(tmp_path: Path, name: str, channels: int, bits: int, band: int) -> None:
    pixels = pixels_of(channels, bits)
    write(tmp_path / name, pixels, band)
    again = read_photograph(tmp_path / name).quantised()
    if (name, channels, bits) == ("a.tiff", 2, 16):  # as colour, since few programs read it otherwise
        again = again[..., [0, 3]]
    assert again.dtype == pixels.dtype and np.array_equal(again, pixels)
    theirs = opencv_image(tmp_path / name)  # another decoder
    if channels != 2 and (channels, name, bits) != (
        4,
        "a.tiff",
        8,
    ):  # OpenCV multiplies colours with alpha of such TIFF files
        colours = theirs if channels == 1 else theirs[..., [2, 1, 0, 3][:channels]]
        assert np.array_equal(colours, pixels)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg", "a.webp"])
@pytest.mark.parametrize("has_exif", [True, False])
def test_profile_exif_and_stamp_are_kept(tmp_path: Path, name: str, bits: int, has_exif: bool) -> None:
    kept = exif().tobytes() if has_exif else None
    write(tmp_path / name, pixels_of(3, bits), icc_profile=b"profile" * 30, exif=kept, stamp="made so")
    assert read_stamp(tmp_path / name) == "made so"
    with Image.open(tmp_path / name) as image:
        assert image.info["icc_profile"] == b"profile" * 30
        found = image.getexif()
        if has_exif:
            assert found[0x010F] == "a camera"
            assert found.get_ifd(0x8769)[0x829A] == pytest.approx((1, 60)) and found.get_ifd(0x8825)[1] == "N"
    write(tmp_path / f"plain_{name}", pixels_of(3, bits))
    assert read_stamp(tmp_path / f"plain_{name}") is None


def test_the_stamp_of_another_program_is_none(tmp_path: Path) -> None:
    software = Image.Exif()
    software[305] = "a program 1.0"
    Image.fromarray(noise_image(4, 5)).save(tmp_path / "a.jpg", exif=software)
    assert read_stamp(tmp_path / "a.jpg") is None and read_stamp(tmp_path / "none.jpg") is None


@pytest.mark.parametrize(("name", "modes"), [("a.jpg", "L L RGB RGB"), ("a.webp", "RGB RGBA RGB RGBA")])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_jpeg_and_webp_hold_what_they_can(tmp_path: Path, name: str, modes: str, channels: int) -> None:
    pixels = np.full((HEIGHT, WIDTH, channels), 100, np.uint8)
    if channels in (2, 4):
        pixels[..., -1] = np.where(np.arange(HEIGHT)[:, None] < 20, 0, 255)
    write(tmp_path / name, pixels[..., 0] if channels == 1 else pixels, quality=100)
    with Image.open(tmp_path / name) as image:
        assert image.mode == modes.split()[channels - 1]
        seen = np.asarray(image.convert("RGBA"))
    assert np.abs(seen[25:, :, :3].astype(int) - 100).max() <= 2
    if channels in (2, 4):
        assert (seen[:15, :, 0] >= 253).all() if name == "a.jpg" else (seen[:15, :, 3] == 0).all()


def test_quality_is_quality(tmp_path: Path) -> None:
    pixels = noise_image(HEIGHT, WIDTH)
    for name in ("a.jpg", "a.webp"):
        sizes = []
        for quality in (10, 60, 100):
            write(tmp_path / name, pixels, quality=quality)
            sizes.append((tmp_path / name).stat().st_size)
        assert sizes == sorted(sizes) and sizes[0] < sizes[2] / 2
    assert np.array_equal(read_photograph(tmp_path / "a.webp").quantised(), pixels)  # 100 is lossless


def test_a_photograph_is_about_as_small_as_pillow_makes_it(tmp_path: Path) -> None:
    from skimage.data import chelsea

    write(tmp_path / "ours.png", chelsea())
    Image.fromarray(chelsea()).save(tmp_path / "theirs.png")
    assert (tmp_path / "ours.png").stat().st_size < 1.15 * (tmp_path / "theirs.png").stat().st_size


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.jpg", "a.webp"])
def test_a_file_appears_when_complete(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyboardInterrupt), picture_written(tmp_path / name, Layout(HEIGHT, WIDTH, 3)) as put:
        put(noise_image(10, WIDTH))
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "layout", "message"),
    [
        ("a.jpg", Layout(10, 65_536, 3), "a.jpg would be 65,536 x 10, more than 65,535 a side, which jpg cannot hold"),
        ("a.webp", Layout(16_384, 10, 3), "more than 16,383 a side, which webp cannot hold; give --format png"),
        ("a.tif", Layout(40_000, 40_000, 3), "a.tif would have more than 4 GB, which TIFF cannot hold"),
        ("a.gif", Layout(4, 5, 3), "a.gif must end in .png, .jpg, .webp, .tiff"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(name: str, layout: Layout, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_layout(Path(name), layout)


def test_what_a_format_leaves_out_is_said() -> None:
    assert check_layout(Path("a.png"), Layout(4, 5, 4, 16)) == []
    assert check_layout(Path("a.jpg"), Layout(4, 5, 4, 16)) == [
        "jpg has 8 bits a channel, not 16",
        "jpg knows no transparency: it is put on white",
    ]
    assert check_layout(Path("a.webp"), Layout(4, 5, 4)) == []
    assert [file_format(Path(name)) for name in ("a.JPEG", "a.tif", "a.jfif", "a.PNG")] == ["jpg", "tiff", "jpg", "png"]


def test_sixteen_bits_are_rounded_to_eight() -> None:
    levels = np.arange(256, dtype=np.uint16) * 257
    assert np.array_equal(eight_bit(levels), np.arange(256)) and eight_bit(np.array([128], np.uint16))[0] == 0
    assert eight_bit(np.array([129], np.uint16))[0] == 1
