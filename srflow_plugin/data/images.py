"""Image files, in and out."""

from __future__ import annotations

from pathlib import Path

import cv2
import mmcv
import numpy as np

from srflow_plugin.errors import UserError
from srflow_plugin.files import complete_or_absent

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"


def check_image(data: bytes, name: str) -> str:
    """Say what is wrong with an encoded image that OpenCV would decode all the same.

    It drops alpha channels and the lower 8 of 16 bits; some versions fill what is missing of a truncated file.

    Returns:
        What is worth knowing about an image that can be used, or "".

    Raises:
        UserError: it cannot be used, with what to do.
    """
    if data.startswith((PNG_START, JPEG_START)):
        end = PNG_END if data.startswith(PNG_START) else JPEG_END
        if not data.rstrip(b"\0\r\n ").endswith(end):
            raise UserError(f"{name} is truncated; fetch or make it again")
    if data.startswith(PNG_START):
        bits, colour = data[24], data[25]
        channels = {0: 1, 4: 2, 6: 4}.get(colour, 3)
    elif data.startswith(JPEG_START):
        return ""
    else:
        image = _decode(data, name, "unchanged")
        bits, channels = 8 * image.itemsize, 1 if image.ndim == 2 else image.shape[2]
    if bits > 8:
        raise UserError(f"{name} has {bits} bits a channel; convert it to 8")
    if channels in (2, 4):
        raise UserError(f"{name} has an alpha channel; flatten it")
    return f"{name} is grey; it is used as three equal channels" if channels == 1 else ""


def decode_image(data: bytes, name: str) -> np.ndarray:
    """An encoded image as uint8 BGR (H, W, 3)."""
    check_image(data, name)
    return _decode(data, name, "color")


def read_image(path: Path) -> np.ndarray:
    """An image file as uint8 BGR (H, W, 3)."""
    try:
        return decode_image(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; correct the path") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def _decode(data: bytes, name: str, flag: str) -> np.ndarray:
    try:
        image = mmcv.imfrombytes(data, flag=flag)
    except cv2.error:  # OpenCV's answer to no bytes at all
        image = None
    if image is None:
        raise UserError(f"{name} is not a readable image; fetch or make it again")
    return image


def write_image(path: Path, image: np.ndarray) -> None:
    """Write uint8 BGR (H, W, 3); the file appears when complete, or not at all."""
    with complete_or_absent(path) as unfinished:
        unfinished.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
