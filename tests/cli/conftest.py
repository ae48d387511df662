"""Fixtures of the commands' tests."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from srflow_plugin import bicubic_downscale
from tests.helpers import small_network


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, entered, with a checkpoint, an HR image, one a little different, and an LR image."""
    monkeypatch.chdir(tmp_path)
    network = small_network(scale_floor=0.3)
    torch.save({"params": network.state_dict()}, "net.pth")
    coarse = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (52, 44), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite("hr.png", image)
    cv2.imwrite("other.png", cv2.GaussianBlur(image, (5, 5), 0))
    cv2.imwrite("lr.png", bicubic_downscale(image, 4))
    cv2.imwrite("odd.png", image[:43, :50])
    cv2.imwrite("dark.png", bicubic_downscale(image // 2, 4))
    return tmp_path
