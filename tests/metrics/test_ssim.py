"""SSIM of several images at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from basicsr.metrics import calculate_ssim

from srflow_plugin.metrics.ssim import ssim_of_each
from tests.helpers import noisy


@pytest.mark.parametrize(
    "options",
    [{"crop_border": 0}, {"crop_border": 4, "test_y_channel": True}, {"crop_border": 3}],
    ids=["RGB", "Y", "border"],
)
def test_it_is_basicsrs_of_each(photograph: np.ndarray, options: dict[str, Any]) -> None:
    samples = [noisy(photograph, seed, sigma) for seed, sigma in enumerate((0, 3, 30))]
    expected = [calculate_ssim(sample, photograph, **options) for sample in samples]
    assert ssim_of_each(samples, photograph, **options) == pytest.approx(expected, abs=1e-12)
    grey = [image[..., 0] for image in (*samples, photograph)]
    expected = [calculate_ssim(image, grey[-1], **options) for image in grey]
    assert ssim_of_each(grey, grey[-1], **options) == pytest.approx(expected, abs=1e-12)


def test_images_of_other_sizes_are_refused(photograph: np.ndarray) -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        ssim_of_each([photograph[1:]], photograph, 0)
