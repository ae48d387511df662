"""Image files of eight bits, in and out."""

from __future__ import annotations

import os
import random
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from srflow_plugin.errors import UserError
from srflow_plugin.images import files
from srflow_plugin.images.files import (
    FORMATS,
    any_size,
    find_images,
    open_image,
    picture_size,
    read_bytes,
    read_image,
    readable_suffixes,
    write_image,
)
from srflow_plugin.images.rows import open_rows
from tests.helpers import UNIX, noise_image, opencv_image
from tests.stress.formats import broken_exif
from tests.stress.hostile import SPECIAL, SUFFIXES, bomb, lying, not_pictures, png, resized, special


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
        ("alpha.png", "has an alpha channel; remove it"),
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


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder, first in PATH, of programs that leave a trace beside it when one of them is started."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("gs", "gswin32c", "gswin64c", "djpeg", "convert"):
        (folder / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # which it remembers
    return folder


NO_PICTURES = not_pictures()
SAID = {
    "eps": "PostScript; export it as PNG",
    "eps with a preview": "PostScript; export it as PNG",
    "ps": "PostScript; export it as PNG",
    "pdf": "a PDF; export its picture as PNG",
    "wmf": "a metafile of Windows; export it as PNG",
    "psd": "a Photoshop document; export it as PNG",
    "jp2": "JPEG 2000; save it as PNG",
    "heic": "a film, HEIC or AVIF; save it as PNG or JPEG",
    "office": "a zip archive; unpack it",
}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_no_picture_is_refused_by_name_and_starts_no_program(
    tmp_path: Path, programs: Path, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    for kind, data in NO_PICTURES.items():
        path.write_bytes(data)
        for read in (read_image, open_rows, lambda file: picture_size(file, str(file))):
            with pytest.raises(UserError, match=r"is not an image that can be read|cannot be read") as told:
                read(path)
            assert SAID.get(kind, "") in str(told.value) and str(told.value).isprintable(), kind
    assert programs.is_dir() and not (tmp_path / "started").exists()


def test_only_pictures_are_read() -> None:
    """Each kind of file that Pillow knows is one of ours, or has been thought about."""
    Image.init()
    others = {"AVIF", "BLP", "BUFR", "CUR", "DCX", "DDS", "EPS", "FITS", "FLI", "FPX", "FTEX", "GBR", "GRIB", "HDF5"}
    others |= {"ICNS", "ICO", "IM", "IMT", "IPTC", "JPEG2000", "MCIDAS", "MIC", "MPEG", "MSP", "PCD", "PCX", "PIXAR"}
    others |= {"PSD", "QOI", "SGI", "SPIDER", "SUN", "WAL", "WMF", "XBM", "XPM", "XVTHUMB"}
    assert not set(FORMATS) & others and set(Image.OPEN) - set(FORMATS) <= others
    assert set(SUFFIXES[:8]) <= readable_suffixes() and not {".eps", ".wmf", ".pdf", ".jp2"} & readable_suffixes()


@UNIX
@pytest.mark.parametrize("how", SPECIAL)
def test_what_is_no_file_or_has_no_end_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.chdir(tmp_path)
    special(Path("a.png"), random.Random(0), how)
    for read in (read_image, open_rows, lambda file: picture_size(file, str(file))):
        with pytest.raises(
            UserError, match=r"^a\.png (is not a file|cannot be read|does not exist|is a |has 8\.0 GiB)"
        ):
            read(Path("a.png"))
    assert read_bytes(tmp_path / "a.png", 9) if "huge" in how else True


LIES = {
    "a text that is longer than the file": (png(middle=lying(b"tEXt", 0x7FFFFFFF)), "cannot be read"),
    "an end of two GiB, in 16 bits": (png(end=lying(b"IEND", 0x7FFFFFFF), bits=16), "is truncated"),
    "a profile of 128 MiB": (png(middle=bomb(b"iCCP", b"a\0\0")), "cannot be read"),
    "a text of 128 MiB": (png(middle=bomb(b"zTXt", b"a\0\0")), "cannot be read"),
    "16 bytes": (png()[:16], "cannot be read"),
    "65535 pixels a side": (resized("JPEG", 65_535, 65_535), "has 65,535 x 65,535 pixels, more than"),
    "a film": (resized("GIF", 65_535, 65_535), "has 65,535 x 65,535 pixels, more than"),
}


@pytest.mark.parametrize("what", LIES)
def test_sizes_in_a_file_are_not_believed(tmp_path: Path, what: str) -> None:
    data, message = LIES[what]
    (tmp_path / "a.png").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(UserError, match=message) as told:
        open_rows(tmp_path / "a.png")
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()
    assert "\n" not in str(told.value)


def test_memory_that_is_not_free_is_named() -> None:
    with pytest.raises(UserError, match=r"x needs 2\.0 GiB of memory, of which 0\.0 are free; choose a smaller one"):
        files.check_memory(2**31, 1000, "x")


def test_any_size_holds_in_several_threads_and_ends(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", noise_image(5, 7))
    data, before = (tmp_path / "a.png").read_bytes(), (Image.MAX_IMAGE_PIXELS, warnings.filters[:])

    def look(_: int) -> int | None:
        with any_size:
            open_image(data, "a")
            return Image.MAX_IMAGE_PIXELS

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(look, range(200))) == {None}
    assert (Image.MAX_IMAGE_PIXELS, warnings.filters[:]) == before


def test_16_bits_in_a_ppm_file_are_not_cut_off(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P5 2 2 65535\n" + bytes(range(8)))
    with pytest.raises(UserError, match="has 16 bits a channel; convert it to 8"):
        read_image(tmp_path / "a.ppm")


@pytest.mark.parametrize("exif", [broken_exif(), b"Exif\0\0II*\0", b"Exif\0\0" + b"\xff" * 300, b"junk"], ids=range(4))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_broken_exif_turns_nothing(tmp_path: Path, suffix: str, exif: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(noise_image(5, 7)).save(path, exif=exif)
    assert read_image(path).shape == (5, 7, 3)
