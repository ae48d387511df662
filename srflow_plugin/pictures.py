"""Pictures for people: images side by side, and maps in colour."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from basicsr.utils.matlab_functions import imresize
from torch import Tensor

TITLE_HEIGHT = 24
GAP = 4
WHITE = 255
SHEET_WIDTH = 2600  # pixels


def bicubic_upscale(lq: Tensor, scale: int) -> Tensor:
    """MATLAB-like bicubic upscaling: (B, C, h, w) -> (B, C, scale*h, scale*w), not clamped."""
    return torch.stack([imresize(image.cpu(), scale) for image in lq]).to(lq)


def comparison_grid(columns: Sequence[tuple[str, np.ndarray]], height: int) -> np.ndarray:
    """Titled images in one row: (title, uint8 BGR (h, w, 3)) each -> uint8 BGR picture.

    Images smaller than ``height`` are enlarged by nearest neighbour, so that an LR image shows its pixels.
    """
    tiles = []
    for title, image in columns:
        if image.shape[0] != height:
            width = round(image.shape[1] * height / image.shape[0])
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST)
        bar = np.full((TITLE_HEIGHT, image.shape[1], 3), WHITE, np.uint8)
        cv2.putText(bar, title, (2, TITLE_HEIGHT - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        gap = np.full((TITLE_HEIGHT + height, GAP, 3), WHITE, np.uint8)
        tiles += [np.vstack([bar, image]), gap]
    return np.hstack(tiles[:-1])


def in_rows(titled: Sequence[tuple[str, np.ndarray]], height: int) -> list[np.ndarray]:
    """Pictures side by side, as many in a row as a wide screen takes."""
    widths = [round(image.shape[1] * height / image.shape[0]) for _, image in titled]
    rows = math.ceil(len(titled) / max(1, SHEET_WIDTH // (max(widths) + GAP)))
    in_a_row = math.ceil(len(titled) / rows)
    return [comparison_grid(titled[first : first + in_a_row], height) for first in range(0, len(titled), in_a_row)]


def stacked(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures below each other, flush left."""
    width = max(picture.shape[1] for picture in pictures)
    rows = []
    for picture in pictures:
        rows.append(np.full((GAP, width, 3), WHITE, np.uint8))
        right = width - picture.shape[1]
        rows.append(cv2.copyMakeBorder(picture, 0, 0, 0, right, cv2.BORDER_CONSTANT, value=(WHITE,) * 3))
    return np.vstack(rows[1:])


def contact_sheet(titled: Sequence[tuple[str, np.ndarray]], height: int) -> np.ndarray:
    """Titled images in as many rows as it takes, see :func:`comparison_grid`."""
    return stacked(in_rows(titled, height))


def heat_map(values: np.ndarray, unit: str) -> np.ndarray:
    """A map (H, W) in colour above a scale: uint8 BGR picture.

    The scale runs from the 0.5 to the 99.5 percentile, so that single pixels do not make the rest dark. Values that are
    not finite are white.
    """
    finite = np.isfinite(values)
    low, high = np.percentile(values[finite], [0.5, 99.5]) if finite.any() else (0.0, 0.0)
    levels = np.where(finite, (values - low) / max(high - low, 1e-12), 0)
    picture = _coloured(levels)
    picture[~finite] = WHITE
    width = values.shape[1]
    scale = _coloured(np.broadcast_to(np.linspace(0, 1, width), (TITLE_HEIGHT // 2, width)))
    bar = np.full((TITLE_HEIGHT, width, 3), WHITE, np.uint8)
    for text, right in ((f"{low:.3g}", False), (f"{high:.3g} {unit}", True)):
        (text_width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
        left = width - text_width - 2 if right else 2
        cv2.putText(bar, text, (left, TITLE_HEIGHT - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([picture, np.full((GAP, width, 3), WHITE, np.uint8), scale, bar])


def _coloured(levels: np.ndarray) -> np.ndarray:
    return cv2.applyColorMap((255 * levels.clip(0, 1)).round().astype(np.uint8), cv2.COLORMAP_VIRIDIS)
