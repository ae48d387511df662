"""Damage of pictures: JPEG and noise are found, and estimated; texture and small pictures are not taken for them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from srflow_plugin import bicubic_downscale
from srflow_plugin.images import damage
from srflow_plugin.images.damage import Damage, damage_of, measure, quality_of
from srflow_plugin.images.files import write_image
from srflow_plugin.images.photographs import from_array
from srflow_plugin.images.rows import open_rows, rows_of
from tests.helpers import noise_image, noisy

PHOTOGRAPHS = ("chelsea", "astronaut", "coffee", "rocket")


def clean(name: str) -> np.ndarray:
    """A photograph made smaller by four, uint8 RGB."""
    gt = getattr(skimage.data, name)()
    height, width = (length - length % 4 for length in gt.shape[:2])
    return bicubic_downscale(np.ascontiguousarray(gt[:height, :width]), 4)


def encoded(image: np.ndarray, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return file.getvalue()


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Pixels that JPEG compression leaves."""
    return np.asarray(Image.open(io.BytesIO(encoded(image, quality))))


def grey_noise(image: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, image.shape[:2])[..., None]
    result: np.ndarray = (image + noise).round().clip(0, 255).astype(np.uint8)
    return result


def found_in(image: np.ndarray) -> Damage:
    return damage_of(rows_of(from_array(image)))


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        lambda image: image[3:, 5:],
        lambda image: jpeg(image, 100),
        lambda image: bicubic_downscale(np.ascontiguousarray(jpeg(image, 75)[:64, :96]), 2),  # made smaller afterwards
        lambda image: image[..., 1],
        lambda image: image.astype(np.uint16) * 257,
        lambda image: np.dstack([image, image[..., 0]]),
    ],
    ids=["as it is", "cut", "JPEG 100", "JPEG made smaller", "grey", "16 bit", "transparent"],
)
def test_clean_pictures(name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    assert found_in(change(clean(name))).is_slight


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("quality", [50, 75, 90])
@pytest.mark.parametrize(
    "change",
    [lambda image: image, lambda image: image[3:, 5:], lambda image: image[::-1, :-2].swapaxes(0, 1)],
    ids=["as it is", "cut", "turned and cut"],
)
def test_marks_of_jpeg(name: str, quality: int, change: Callable[[np.ndarray], np.ndarray]) -> None:
    found = found_in(change(jpeg(clean(name), quality)))
    assert found.is_slight == (quality == 90) and found.quality is not None and abs(found.quality - quality) <= 3


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("sigma", [5, 10, 15])
@pytest.mark.parametrize("change", [lambda image, sigma: noisy(image, 0, sigma), grey_noise], ids=["colours", "grey"])
def test_noise(name: str, sigma: int, change: Callable[[np.ndarray, float], np.ndarray]) -> None:
    found = found_in(change(clean(name), sigma))
    assert not found.is_slight and found.quality is None and 0.75 * sigma < found.noise < 1.25 * sigma


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (400, 3), (8, 8), (9, 9), (15, 17), (16, 16), (20, 20)])
def test_of_little_and_of_nothing_no_damage_is_said(size: tuple[int, int]) -> None:
    height, width = size
    for level in (0, 77, 255):
        assert found_in(np.full((*size, 3), level, np.uint8)) == Damage()
    ramp = np.linspace(0, 200, height * width * 3).reshape(height, width, 3).astype(np.uint8)
    assert found_in(ramp).is_slight


def test_drawings_are_clean() -> None:
    image = np.full((96, 96, 3), 250, np.uint8)
    image[13:57, 21:70] = (200, 30, 40)
    image[40:80, 5:30] = (20, 120, 60)
    assert found_in(image).is_slight


def test_a_jpeg_file_says_its_quality(tmp_path: Path) -> None:
    image = np.full((24, 24, 3), 99, np.uint8)  # in which no mark can be seen
    for quality in (30, 50, 71, 85, 95, 99):
        (tmp_path / "a.jpg").write_bytes(encoded(image, quality))
        found = damage_of(open_rows(tmp_path / "a.jpg")).quality
        assert found is not None and abs(found - quality) < 3
    (tmp_path / "a.jpg").write_bytes(encoded(jpeg(clean("coffee"), 60), 98))  # what was lost before stays lost
    found = damage_of(open_rows(tmp_path / "a.jpg")).quality
    assert found is not None and abs(found - 60) <= 3
    Image.fromarray(clean("coffee")).convert("CMYK").save(tmp_path / "b.jpg", quality=80)
    assert not damage_of(open_rows(tmp_path / "b.jpg")).is_slight
    write_image(tmp_path / "a.png", image)
    assert open_rows(tmp_path / "a.png").tables is None
    assert quality_of({1: [255] * 64, 0: [1] * 64}) > 99 > 12 > quality_of({0: [255] * 64})


def test_only_the_middle_of_a_large_picture_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(damage, "SIDE", 64)
    monkeypatch.setattr("srflow_plugin.images.rows.ROWS_READ", 16)
    image = noise_image(200, 300)
    image[68:132, 118:182] = clean("chelsea")[:64, :64]
    rows, read = rows_of(from_array(image)), []
    bands = rows.bands
    rows.bands = lambda: (read.append(len(band.rgb)) or band for band in bands())  # type: ignore[func-returns-value]
    assert damage_of(rows) == measure(image[68:132, 118:182] / np.float32(255)) and sum(read) == 144


@pytest.mark.parametrize(
    ("found", "is_slight", "words"),
    [
        (Damage(), True, "neither JPEG nor noise found"),
        (Damage(71.6, 6.4), False, "JPEG of quality about 72, noise of about 6 grey levels"),
        (Damage(None, 4.0), False, "noise of about 4 grey levels"),
        (Damage(98.0, 1.0), True, "JPEG of quality about 98"),
        (Damage(95.0, 0.0), True, "JPEG of quality about 95"),
        (Damage(84.0, 0.0), False, "JPEG of quality about 84"),
    ],
)
def test_words(found: Damage, is_slight: bool, words: str) -> None:
    assert (found.is_slight, str(found)) == (is_slight, words)
