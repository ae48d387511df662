"""MATLAB's bicubic resizing, down and up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from basicsr.utils.matlab_functions import imresize

from srflow_plugin import bicubic_downscale
from srflow_plugin.images.files import find_images, read_image
from srflow_plugin.images.resize import Border, Downscaler, bicubic_upscale, differentiable_downscale
from tests.helpers import noise_image

MATLAB_OUTPUTS = [
    ("Set5/HR", "Set5/LRx4", 4, "replicate", 5),
    ("Set14/HR", "Set14/LRx4", 4, "replicate", 14),
    ("Set5/HR", "Set5/LRx4_sym", 4, "symmetric", 5),
    ("faces/pairs_x8_sym/HR", "faces/pairs_x8_sym/LRx8", 8, "symmetric", 6),
]


@pytest.mark.parametrize(("hr", "lr", "scale", "border", "count"), MATLAB_OUTPUTS)
def test_downscale_is_matlabs_bit_for_bit(
    shared_data: Path, hr: str, lr: str, scale: int, border: Border, count: int
) -> None:
    images = find_images(shared_data / hr)
    assert len(images) == count
    for path in images:
        expected = read_image(shared_data / lr / path.name)
        height, width = (scale * size for size in expected.shape[:2])
        actual = bicubic_downscale(read_image(path)[:height, :width], scale, border)
        assert np.array_equal(actual, expected), path.name


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_downscale_agrees_with_basicsr_up_to_rounding(scale: int) -> None:
    image = noise_image(12 * scale, 7 * scale)
    tensor = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))
    expected = imresize(tensor, 1 / scale).numpy().transpose(1, 2, 0).clip(0, 255)
    actual = bicubic_downscale(image, scale)
    assert actual.shape == (12, 7, 3) and actual.dtype == np.uint8
    assert np.abs(actual - expected).max() < 2  # BasicSR does not round between the dimensions


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("border", ["symmetric", "replicate"])
def test_differentiable_downscale_is_the_same_filter(scale: int, border: Any) -> None:
    grey = np.random.default_rng(scale).integers(96, 160, (scale * 40, scale * 3), dtype=np.uint8)
    image = cv2.GaussianBlur(grey, (5, 5), 1)  # no value is clipped, so that rounding alone is between the two
    small = differentiable_downscale(torch.from_numpy(image)[None, None].double(), scale, border)
    assert np.abs(small[0, 0].numpy() - bicubic_downscale(image, scale, border)).max() <= 1.2
    assert small.shape == (1, 1, 40, 3)


def test_differentiable_downscale_has_gradients() -> None:
    images = torch.rand(2, 1, 8, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda images: differentiable_downscale(images, 4), images)


def test_downscale_keeps_constants_and_grey_images() -> None:
    for border in ("symmetric", "replicate"):
        assert (bicubic_downscale(np.full((8, 16), 77, np.uint8), 4, border) == 77).all()


def test_downscale_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="uint8"):
        bicubic_downscale(np.zeros((8, 8, 3)), 4)
    with pytest.raises(ValueError, match="multiples of 4"):
        bicubic_downscale(np.zeros((8, 10, 3), np.uint8), 4)
    with pytest.raises(ValueError, match="border"):
        bicubic_downscale(np.zeros((8, 8, 3), np.uint8), 4, "reflect")  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (3, 1), (2, 2), (2, 7), (3, 5), (7, 13), (20, 31)])
def test_upscale_is_matlabs(scale: int, height: int, width: int) -> None:
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height * 100 + width))
    enlarged = bicubic_upscale(images, scale)
    assert enlarged.shape == (2, 3, scale * height, scale * width)
    for image, ours in zip(images, enlarged, strict=True):
        assert (ours - imresize(image, scale)).abs().max() < 1e-6


def test_upscale_keeps_the_type_and_constants() -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        enlarged = bicubic_upscale(torch.full((1, 1, 3, 2), 0.25, dtype=dtype), 4)
        assert enlarged.dtype == dtype and enlarged.shape == (1, 1, 12, 8)
        torch.testing.assert_close(enlarged, torch.full_like(enlarged, 0.25))


@pytest.mark.parametrize("ratio", [1.0, 0.75, 0.5, 1 / 3, 0.25, 0.3, 0.9])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_rows_that_come_and_go_are_downscaled_as_the_whole(ratio: float, dtype: Any) -> None:
    image = (np.random.default_rng(0).random((48, 60, 3)) * np.iinfo(dtype).max).astype(dtype)
    whole = Downscaler(48, 60, ratio).put(image)
    for size in (1, 7, 48):
        downscaler = Downscaler(48, 60, ratio)
        parts = [downscaler.put(image[top : top + size]) for top in range(0, 48, size)]
        assert np.array_equal(np.concatenate(parts), whole)
    assert whole.shape == (np.ceil(round(48 * ratio, 9)), np.ceil(round(60 * ratio, 9)), 3)
    scale = round(1 / ratio)
    if dtype == np.uint8 and scale * ratio == 1 and scale > 1:
        assert np.array_equal(whole, bicubic_downscale(image, scale))
    if ratio == 1:
        assert np.array_equal(whole, image)


def test_what_is_even_stays_even_at_any_ratio() -> None:
    for ratio in (0.13, 0.5, 0.77):
        assert (Downscaler(40, 50, ratio).put(np.full((40, 50), 77, np.uint8)) == 77).all()


def test_a_smaller_picture_lies_where_the_larger_did() -> None:
    ramp = np.broadcast_to(np.arange(0, 240, 4, dtype=np.uint8), (40, 60))
    small = Downscaler(40, 60, 0.75).put(ramp)[20]
    centres = (np.arange(45) + 0.5) / 0.75 - 0.5
    assert np.abs(small[4:-4] - 4 * centres[4:-4]).max() <= 1


@pytest.mark.parametrize("ratio", [0.75, 0.625, 0.5, 0.3])
def test_any_ratio_is_basicsrs_imresize(ratio: float) -> None:
    image = 80 + noise_image(48, 60) // 3  # where nothing is clipped between rows and columns
    theirs = imresize(image / np.float32(255), ratio, antialiasing=True)
    ours = Downscaler(48, 60, ratio).put(image)
    assert ours.shape == theirs.shape
    assert np.abs(ours - 255 * theirs).max() < 1.01  # which does not round between them
