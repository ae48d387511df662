"""What the page answers."""

from __future__ import annotations

import threading
import time
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from srflow_plugin import bicubic_downscale, load_network
from srflow_plugin.applications.upscale import How, draw, find_network
from srflow_plugin.demo.session import TEMPERATURES, Session, example, notes_on, transfer_example
from srflow_plugin.errors import UserError
from srflow_plugin.images.photographs import Photograph, from_array, from_pillow
from tests.helpers import noise_image


@pytest.fixture
def session(checkpoint: Path) -> Session:
    return Session(load_network(checkpoint), max_pixels=400)


def photograph(width: int, height: int) -> Photograph:
    return from_pillow(example("cat").crop((0, 0, width, height)))


def test_answers(session: Session) -> None:
    original = photograph(50, 43)
    answer = session.upscale(original, True, 0.3, 3, 0)
    gt = original.quantised()[:40, :48]
    pictures = [picture.quantised() for _, picture in answer.pictures]
    assert [title for title, _ in answer.pictures] == ["bicubic", "sample 0", "sample 1", "sample 2", "original"]
    assert all(picture.shape == gt.shape for picture in pictures) and np.array_equal(pictures[-1], gt)
    assert answer.spread is not None and len(answer.figures) == 5
    lq = from_array(bicubic_downscale(np.ascontiguousarray(gt), 4))
    again = session.upscale(lq, False, 0.3, 3, 0)
    same = zip(pictures[:-1], (picture.quantised() for _, picture in again.pictures), strict=True)
    assert all(np.array_equal(*pair) for pair in same) and len(again.figures) == 2
    assert np.array_equal(answer.lq.quantised(), again.lq.quantised())
    smooth = session.upscale(lq, False, 0, 3, 0)
    assert len(smooth.pictures) == 2 and smooth.spread is None


def test_uploads_are_enlarged_as_the_command_does(tmp_path: Path) -> None:
    cat = photograph(12, 9).quantised()
    turned = Image.Exif()
    turned[0x0112] = 6
    files = {
        "grey.png": Image.fromarray(cat[..., 0]),
        "grey16.png": Image.fromarray(cat[..., 0].astype(np.uint16) * 256),
        "alpha.png": Image.fromarray(np.dstack([cat, noise_image(9, 12)[..., 0]])),
        "palette.png": Image.fromarray(cat).quantize(8),
        "still.gif": Image.fromarray(cat).quantize(8),
        "one.png": Image.fromarray(cat[:1, :1]),
    }
    for name, image in files.items():
        image.save(tmp_path / name)
    Image.fromarray(cat).save(tmp_path / "turned.jpg", exif=turned)
    cv2.imwrite(str(tmp_path / "deep.png"), cat.astype(np.uint16) * 250)
    network = find_network(4, None, "cpu")
    session = Session(network, max_pixels=400)
    for path in sorted(tmp_path.iterdir()):
        upload = session.read(path, is_hr=False)
        (_, sample), *_ = session.upscale(upload, False, 0.8, 1, 5).pictures[1:]
        expected = draw(network, upload, How(0.8, 1, 5))[0]
        assert np.array_equal(sample.quantised(), expected.quantised()), path.name
        assert (sample.bits, sample.is_grey) == (upload.bits, upload.is_grey), path.name
        assert sample.rgb.shape[:2] == tuple(4 * size for size in upload.rgb.shape[:2]), path.name
        assert (sample.alpha is None) == (path.name != "alpha.png") and notes_on(path) == []
    assert session.read(tmp_path / "turned.jpg", False).rgb.shape == (12, 9, 3)
    assert session.read(tmp_path / "deep.png", False).bits == 16


def test_animations_are_said_to_be_cut(tmp_path: Path) -> None:
    frames = [Image.fromarray(noise_image(4, 5, seed)) for seed in range(3)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert notes_on(tmp_path / "moving.gif") == ["moving.gif: it has 3 frames, of which the first is taken."]


def test_originals_keep_their_transparency(session: Session) -> None:
    alpha = np.tile(np.linspace(0, 1, 48, dtype=np.float32), (40, 1))
    answer = session.upscale(photograph(48, 40)._replace(alpha=alpha), True, 0, 1, 0)
    assert answer.lq.alpha is not None and answer.lq.alpha.shape == (10, 12)
    for title, picture in answer.pictures:
        assert picture.alpha is not None and np.abs(picture.alpha - alpha).max() < 0.05, title


def test_images_too_large_to_be_remembered_are_drawn_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(find_network(4, None, "cpu"), max_pixels=400)
    whole = session.upscale(photograph(12, 9), False, 0.5, 1, 0).pictures[1][1]
    monkeypatch.setattr("srflow_plugin.demo.session.PIXELS_KEPT", 107)
    features = Mock(wraps=session._features)
    monkeypatch.setattr(session, "_features", features)
    assert session.upscale(photograph(12, 9), False, 0.5, 1, 0).pictures[1][1].rgb == pytest.approx(whole.rgb, abs=1e-3)
    assert features(session._tensor(photograph(12, 9))) is None and len(session.features) == 1


def test_what_is_bicubic_is_said() -> None:
    session = Session(find_network(4, None, "cpu"), max_pixels=400)
    assert session.upscale(photograph(12, 9), False, 0.8, 2, 0).notes == []
    noise = from_array(noise_image(9, 11))
    assert "% of it is bicubic" in session.upscale(noise, False, 0, 1, 0).notes[0]
    assert len(session.compare_temperatures(noise, False, 0).notes) == 1


@pytest.mark.slow
def test_temperatures_side_by_side(session: Session) -> None:
    original = photograph(48, 40)
    compared = session.compare_temperatures(original, True, 7)
    titles = [title for title, _ in compared.pictures]
    assert titles == ["bicubic", *(f"temperature {temperature:g}" for temperature in TEMPERATURES), "original"]
    assert [name for name, _ in compared.figures] == titles[:-1]
    for number in (0, 2):
        alone = session.upscale(original, True, TEMPERATURES[number], 1, 7)
        assert np.array_equal(compared.pictures[1 + number][1].rgb, alone.pictures[1][1].rgb)


def test_transfer_brings_the_light_back() -> None:
    session = Session(find_network(4, None, "cpu"), max_pixels=65_536)
    edited, original = transfer_example()
    result = session.transfer(from_pillow(edited), from_pillow(original)).quantised().astype(np.float64)
    before, after = (np.abs(image - np.asarray(original)).mean() for image in (np.asarray(edited), result))
    assert after < before / 4  # the light of the original is back


def test_the_encoder_runs_once_an_image(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_once = "srflow_plugin.sampling.tiling.resample_exploded"  # an untrained network's samples explode
    monkeypatch.setattr(drawn_once, lambda field, images, *others: torch.zeros(len(images)))
    features = Mock(wraps=session.network.features)
    monkeypatch.setattr(session.network, "features", features)
    images = [from_array(np.full((4, 5, 3), level, np.uint8)) for level in range(10)]
    for temperature in (0, 0.5, 0.9):
        session.upscale(images[0], False, temperature, 2, 1)
    assert features.call_count == 1
    for image in images:
        session.upscale(image, False, 0, 1, 0)
    assert features.call_count == 10 and len(session.features) == 8  # not without end


class Slow(OrderedDict[bytes, Any]):
    """Dictionary in which threads get between a change and the next step."""

    def __setitem__(self, key: bytes, value: object) -> None:
        super().__setitem__(key, value)
        time.sleep(0.001)


def test_features_are_not_mixed_by_threads(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.network, "features", lambda tensor: [float(tensor[0, 0, 0, 0])])
    session.features = Slow()
    tensors = [torch.full((1, 3, 2, 2), level / 32) for level in range(32)]
    faults: list[object] = []

    def ask(first: int) -> None:
        try:
            for number in range(15):
                tensor = tensors[(first + 7 * number) % 32]
                features: Any = session._features(tensor)
                faults.extend([] if features == [float(tensor[0, 0, 0, 0])] else [tensor])
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == [] and len(session.features) == 8


def test_what_cannot_be_answered(session: Session, tmp_path: Path) -> None:
    def blank(width: int, height: int) -> Photograph:
        return from_pillow(Image.new("RGB", (width, height)))

    with pytest.raises(UserError, match=r"21x20 is more than this page takes \(400 LR pixels\); cut the image"):
        session.upscale(blank(21, 20), False, 0, 1, 0)
    assert session.upscale(blank(80, 80), True, 0, 1, 0).pictures[1][1].rgb.shape == (80, 80, 3)
    with pytest.raises(UserError, match="smaller than 4 pixels"):
        session.upscale(blank(3, 20), True, 0, 1, 0)
    with pytest.raises(UserError, match="the same size"):
        session.transfer(blank(8, 8), blank(8, 12))


@pytest.mark.parametrize("kind", ["large", "gigapixels", "text", "truncated", "empty", "drawing"])
def test_files_that_cannot_be_read_get_a_line_without_their_folder(session: Session, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "upload.png"
    Image.new("RGB", (21 if kind == "large" else 20, 20)).save(path)
    data = path.read_bytes()
    header = data[12:16] + (40_000).to_bytes(4, "big") * 2 + data[24:29]
    gigapixels = data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]
    drawing = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
    contents = {"text": b"text", "truncated": data[:-30], "empty": b"", "gigapixels": gigapixels, "drawing": drawing}
    path.write_bytes(contents.get(kind, data))
    with pytest.raises(UserError) as told:
        session.read(path, is_hr=False)
    assert str(tmp_path) not in str(told.value) and "\n" not in str(told.value)
    too_large = "is more than this page takes (400 LR pixels)"
    expected = {
        "large": f"21x20 {too_large}",
        "gigapixels": f"upload.png {too_large}",
        "truncated": "upload.png cannot be read",
    }
    assert expected.get(kind, "upload.png is not an image that can be read") in str(told.value)
