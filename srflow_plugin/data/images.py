"""Image files, in and out."""

from __future__ import annotations

from pathlib import Path

import cv2
import mmcv
import numpy as np

from srflow_plugin.errors import UserError
from srflow_plugin.files import complete_or_absent

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def read_image(path: Path) -> np.ndarray:
    """An image file as uint8 BGR (H, W, 3)."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; correct the path")
    try:
        image = mmcv.imread(str(path), flag="color")
    except cv2.error:
        image = None
    if image is None:
        raise UserError(f"{path} is not a readable image")
    return image


def write_image(path: Path, image: np.ndarray) -> None:
    """Write uint8 BGR (H, W, 3); the file appears when complete, or not at all."""
    with complete_or_absent(path) as unfinished:
        unfinished.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
