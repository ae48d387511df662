"""LR-PSNR against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from srflow_plugin import bicubic_downscale, calculate_lr_psnr
from tests.helpers import noisy


def test_lr_psnr_is_that_of_the_downscaled_images(photograph: np.ndarray) -> None:
    other = noisy(photograph, 0)
    small, small_other = (bicubic_downscale(image, 4) for image in (photograph, other))
    expected = peak_signal_noise_ratio(small, small_other, data_range=255)
    assert calculate_lr_psnr(other, photograph) == pytest.approx(expected, abs=1e-9)
    assert calculate_lr_psnr(other, lq=small) == pytest.approx(expected, abs=1e-9)
    assert calculate_lr_psnr(photograph, photograph) == float("inf")
    cropped = peak_signal_noise_ratio(small[2:-2, 2:-2], small_other[2:-2, 2:-2], data_range=255)
    assert calculate_lr_psnr(other, photograph, crop_border=2) == pytest.approx(cropped, abs=1e-9)
    replicated = (bicubic_downscale(image, 8, "replicate") for image in (photograph, other))
    expected = peak_signal_noise_ratio(*replicated, data_range=255)
    assert calculate_lr_psnr(other, photograph, scale=8, lr_border="replicate") == pytest.approx(expected, abs=1e-9)
    with pytest.raises(ValueError, match="needs the LR image"):
        calculate_lr_psnr(photograph)
