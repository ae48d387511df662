"""The network that a picture chooses, from Python."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import chelsea

import srflow_plugin
from srflow_plugin import bicubic_downscale
from srflow_plugin.applications import upscale
from srflow_plugin.applications.choice import checkpoint_for
from srflow_plugin.errors import UserError
from srflow_plugin.images.tensors import to_tensor
from tests.helpers import Enlarger, noisy

CLEAN = bicubic_downscale(np.ascontiguousarray(chelsea()[:, :448]), 4)


def as_jpeg(image: np.ndarray) -> Image.Image:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=70)
    return Image.open(file)


IMAGES: dict[str, tuple[Any, str]] = {
    "clean": (CLEAN, "srflow_x4"),
    "noisy": (noisy(CLEAN, 0), "srflow_x4_real"),
    "noisy, float": (noisy(CLEAN, 0) / 255, "srflow_x4_real"),
    "clean, Pillow": (Image.fromarray(CLEAN), "srflow_x4"),
    "JPEG, Pillow": (as_jpeg(CLEAN), "srflow_x4_real"),
    "JPEG, of one colour": (as_jpeg(np.full((9, 9, 3), 99, np.uint8)), "srflow_x4_real"),
    "pixels of a JPEG": (np.asarray(as_jpeg(CLEAN)), "srflow_x4_real"),
    "clean, tensor": (to_tensor(CLEAN)[0], "srflow_x4"),
    "noisy, batch of one": (to_tensor(noisy(CLEAN, 0)), "srflow_x4_real"),
    "a face": (CLEAN[:20, :20], "srflow_x4"),  # never guessed
}


@pytest.mark.parametrize("kind", IMAGES)
def test_the_picture_chooses(kind: str) -> None:
    image, name = IMAGES[kind]
    assert checkpoint_for(image, "auto", None, None).stem == name
    assert checkpoint_for(image, "photo", None, None).stem == "srflow_x4"


def test_upscale_draws_with_what_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(path: Path, **how: Any) -> Enlarger:
        loaded.append(path.stem)
        return Enlarger()

    monkeypatch.setattr(upscale, "load_network", load)
    upscale._loaded.cache_clear()
    for image, word in ((CLEAN, None), (noisy(CLEAN, 0), None), (noisy(CLEAN, 0), "auto")):
        srflow_plugin.upscale(image[:40, :40], network=word)
    srflow_plugin.upscale(CLEAN[:20, :20], network="face")
    upscale._loaded.cache_clear()
    assert loaded == [
        "srflow_x4",
        "srflow_x4_real",
        "srflow_x8_face",
    ]  # without a word that for clean ones


@pytest.mark.parametrize(
    ("image", "how", "message"),
    [
        (torch.rand(2, 3, 9, 9), {"network": "auto"}, "for one image, not for a batch of 2; name photo or real"),
        (torch.rand(2, 9, 9), {"network": "auto"}, "a tensor must be float"),
        ("photo.png", {"network": "auto"}, "must be a numpy array, a Pillow image or a tensor, not str"),
        (CLEAN, {"network": "reel"}, "network 'reel' is not known; did you mean real?"),
        (CLEAN, {"network": "real", "checkpoint": "srflow_x4"}, "give one of them"),
        (CLEAN, {"network": "face", "scale": 4}, "network face is of scale 8, not 4"),
    ],
)
def test_mistakes(image: Any, how: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        srflow_plugin.upscale(image, **how)
