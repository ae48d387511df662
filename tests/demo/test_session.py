"""What the page answers."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from srflow_plugin import bicubic_downscale, load_network
from srflow_plugin.applications.upscale import find_network
from srflow_plugin.demo.session import TEMPERATURES, Session, example, transfer_example
from srflow_plugin.errors import UserError


@pytest.fixture
def session(checkpoint: Path) -> Session:
    return Session(load_network(checkpoint), max_pixels=400)


def test_answers(session: Session) -> None:
    photograph = example("cat").crop((0, 0, 50, 43))
    answer = session.upscale(photograph, True, 0.3, 3, 0)
    gt = np.asarray(photograph)[:40, :48]
    pictures = [picture for picture, _ in answer.pictures]
    assert [title for _, title in answer.pictures] == ["bicubic", "sample 0", "sample 1", "sample 2", "original"]
    assert all(picture.shape == gt.shape for picture in pictures) and np.array_equal(pictures[-1], gt)
    assert answer.spread is not None and len(answer.figures) == 5
    lq = Image.fromarray(bicubic_downscale(np.ascontiguousarray(gt), 4))
    again = session.upscale(lq, False, 0.3, 3, 0)
    same = zip(pictures[:-1], (picture for picture, _ in again.pictures), strict=True)
    assert all(np.array_equal(*pair) for pair in same) and len(again.figures) == 2
    smooth = session.upscale(lq, False, 0, 3, 0)
    assert len(smooth.pictures) == 2 and smooth.spread is None


@pytest.mark.slow
def test_temperatures_side_by_side(session: Session) -> None:
    photograph = example("cat").crop((0, 0, 48, 40))
    compared = session.compare_temperatures(photograph, True, 7)
    titles = [title for _, title in compared.pictures]
    assert titles == ["bicubic", *(f"temperature {temperature:g}" for temperature in TEMPERATURES), "original"]
    assert [name for name, _ in compared.figures] == titles[:-1]
    for number in (0, 2):
        alone = session.upscale(photograph, True, TEMPERATURES[number], 1, 7)
        assert np.array_equal(compared.pictures[1 + number][0], alone.pictures[1][0])


def test_transfer_brings_the_light_back() -> None:
    session = Session(find_network(4, None, "cpu"), max_pixels=65_536)
    edited, original = transfer_example()
    result = session.transfer(edited, original).astype(np.float64)
    before, after = (np.abs(image - np.asarray(original)).mean() for image in (np.asarray(edited), result))
    assert after < before / 4  # the light of the original is back


def test_the_encoder_runs_once_an_image(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_once = "srflow_plugin.sampling.draw.resample_exploded"  # an untrained network's samples explode
    monkeypatch.setattr(drawn_once, lambda decode, latents, images, *others: images)
    features = Mock(wraps=session.network.features)
    monkeypatch.setattr(session.network, "features", features)
    images = [Image.fromarray(np.full((4, 5, 3), level, np.uint8)) for level in range(10)]
    for temperature in (0, 0.5, 0.9):
        session.upscale(images[0], False, temperature, 2, 1)
    assert features.call_count == 1
    for image in images:
        session.upscale(image, False, 0, 1, 0)
    assert features.call_count == 10 and len(session.features) == 8  # not without end


def test_what_cannot_be_answered(session: Session) -> None:
    with pytest.raises(UserError, match=r"21x20 is more than this page takes \(400 LR pixels\)"):
        session.upscale(Image.new("RGB", (21, 20)), False, 0, 1, 0)
    assert session.upscale(Image.new("RGB", (80, 80)), True, 0, 1, 0).pictures[1][0].shape == (80, 80, 3)
    with pytest.raises(UserError, match="smaller than 4 pixels"):
        session.upscale(Image.new("RGB", (3, 20)), True, 0, 1, 0)
    with pytest.raises(UserError, match="the same size"):
        session.transfer(Image.new("RGB", (8, 8)), Image.new("RGB", (8, 12)))
