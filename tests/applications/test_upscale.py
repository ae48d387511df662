"""srflow_plugin.upscale: the kind of thing that goes in comes out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import chelsea

import srflow_plugin
from srflow_plugin.applications.upscale import find_network
from srflow_plugin.errors import UserError
from tests.helpers import Enlarger


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

    bad: Any
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
    with pytest.raises(UserError, match="precision must be auto, float32 or bfloat16, not float16"):
        srflow_plugin.upscale(rgb, precision="float16")  # type: ignore[arg-type]


def test_a_network_is_loaded_once_and_anew_when_its_file_changes(place: Path) -> None:
    first = find_network(None, "net.pth", "cpu")
    assert find_network(None, "net.pth", "cpu") is first
    os.utime("net.pth", (0, 0))
    assert find_network(None, "net.pth", "cpu") is not first
