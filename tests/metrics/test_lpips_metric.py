"""LPIPS and ST-LPIPS as metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import lpips
import numpy as np
import pytest
import torch

from srflow_plugin import calculate_lpips, calculate_stlpips
from srflow_plugin.errors import UserError
from srflow_plugin.metrics import perceptual, published
from tests.helpers import noisy


@pytest.mark.usefixtures("random_alexnet")
def test_lpips_is_the_packages(photograph: np.ndarray) -> None:
    other = noisy(photograph, 0)
    network = lpips.LPIPS(net="alex", verbose=False)
    x, y = (lpips.im2tensor(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)) for image in (other, photograph))
    expected = network(x, y).item()
    assert calculate_lpips(other, photograph) == pytest.approx(expected, rel=1e-5)
    assert calculate_lpips(photograph, photograph) == 0
    border = np.full_like(photograph, 0)
    border[8:-8, 8:-8] = photograph[8:-8, 8:-8]
    assert calculate_lpips(border, photograph, crop_border=8) == 0 < calculate_lpips(border, photograph)


def test_lpips_without_its_weights_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, photograph: np.ndarray, tmp_path: Path
) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise UserError("it cannot be fetched")

    monkeypatch.setattr(published, "download", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    perceptual.perceptual_distance.cache_clear()
    with pytest.raises(UserError, match=r"it cannot be fetched.*calculate_stlpips"):
        calculate_lpips(photograph, photograph)


@pytest.mark.slow
def test_stlpips_needs_no_download_and_orders_as_eyes_do(photograph: np.ndarray) -> None:
    height, width = photograph.shape[:2]
    blurred = cv2.resize(cv2.resize(photograph, (width // 8, height // 8)), (width, height))
    distances = [calculate_stlpips(noisy(photograph, 0, sigma), photograph) for sigma in (0, 3, 30)]
    assert 0 == distances[0] < distances[1] < distances[2]
    assert calculate_stlpips(blurred, photograph) > distances[1]
    assert calculate_stlpips(blurred, photograph, net="vgg") > 0
