"""Arrays become tensors and come back."""

from __future__ import annotations

import numpy as np
import torch

from srflow_plugin.images.tensors import to_array, to_pixels, to_tensor
from tests.helpers import noise_image


def test_every_grey_level_comes_back() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(8, 32, 1).repeat(3, axis=2)
    tensor = to_tensor(pixels)
    assert tensor.shape == (1, 3, 8, 32) and tensor.dtype == torch.float32
    assert tensor.min() == 0 and tensor.max() == 1
    assert np.array_equal(to_pixels(tensor[0]), pixels)


def test_channels_keep_their_order_and_floats_their_values() -> None:
    pixels = noise_image(4, 5).astype(np.float64)
    tensor = to_tensor(pixels)
    assert np.array_equal(tensor[0, 2].numpy(), pixels[..., 2])
    assert np.array_equal(to_array(tensor[0]), pixels)
    assert to_array(tensor[0]).dtype == np.float32


def test_what_is_beyond_is_clamped_and_what_is_no_number_is_black() -> None:
    image = torch.tensor([-1.0, 2.0, torch.nan, torch.inf, -torch.inf, 0.5]).view(1, 1, 6)
    assert to_pixels(image).ravel().tolist() == [0, 255, 0, 255, 0, 128]
