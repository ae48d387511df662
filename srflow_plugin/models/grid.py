"""Pictures for people: LR, bicubic, samples and ground truth side by side."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from basicsr.utils.matlab_functions import imresize
from torch import Tensor

TITLE_HEIGHT = 24
GAP = 4
WHITE = 255


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
