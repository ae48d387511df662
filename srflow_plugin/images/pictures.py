"""Pictures for people: images side by side, and maps in colour. All are uint8 RGB (H, W, 3). Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TITLE_HEIGHT = 24
TITLE_SIZE = 13
GAP = 4
WHITE = 255
SHEET_WIDTH = 2600  # pixels
# Colours of matplotlib's viridis at nine places; between them they are mixed.
VIRIDIS = np.array(
    [
        (68, 1, 84),
        (71, 44, 122),
        (59, 81, 139),
        (44, 113, 142),
        (33, 144, 141),
        (39, 173, 129),
        (92, 200, 99),
        (170, 220, 50),
        (253, 231, 37),
    ]
)


def comparison_grid(columns: Sequence[tuple[str, np.ndarray]], height: int) -> np.ndarray:
    """Put titled images into one row.

    Images smaller than ``height`` are enlarged by nearest neighbour, so that an LR image shows its pixels.
    """
    tiles = []
    for title, image in columns:
        width = round(image.shape[1] * height / image.shape[0])
        bar = _written(width, [(title, False)])
        gap = np.full((TITLE_HEIGHT + height, GAP, 3), WHITE, np.uint8)
        tiles += [np.vstack([bar, resized(image, height, width)]), gap]
    return np.hstack(tiles[:-1])


def in_rows(titled: Sequence[tuple[str, np.ndarray]], height: int) -> list[np.ndarray]:
    """Put titled images side by side, as many in a row as a wide screen takes."""
    widths = [round(image.shape[1] * height / image.shape[0]) for _, image in titled]
    rows = math.ceil(len(titled) / max(1, SHEET_WIDTH // (max(widths) + GAP)))
    in_a_row = math.ceil(len(titled) / rows)
    return [comparison_grid(titled[first : first + in_a_row], height) for first in range(0, len(titled), in_a_row)]


def stacked(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Put pictures below each other, flush left."""
    width = max(picture.shape[1] for picture in pictures)
    rows = []
    for picture in pictures:
        right = width - picture.shape[1]
        rows.append(np.pad(picture, ((0, GAP), (0, right), (0, 0)), constant_values=WHITE))
    return np.vstack(rows)[:-GAP]


def contact_sheet(titled: Sequence[tuple[str, np.ndarray]], height: int) -> np.ndarray:
    """Put titled images into as many rows as it takes, see :func:`comparison_grid`."""
    return stacked(in_rows(titled, height))


def spread(samples: Sequence[np.ndarray]) -> np.ndarray:
    """Standard deviation over samples, each (H, W, C) in grey levels: its mean over the channels, (H, W).

    Unbiased by :func:`std_bias`, so that the number of samples does not change its mean.

    >>> spread([np.zeros((1, 2, 3)), np.full((1, 2, 3), 4)]).round(3)
    array([[3.545, 3.545]])
    """
    rows = [
        np.std(np.stack(bands).astype(np.float64), axis=0, ddof=1).mean(1)
        for bands in zip(*samples, strict=True)  # what fits into a cache takes half of the time
    ]
    return np.stack(rows) / std_bias(len(samples))


def std_bias(number: int) -> float:
    """Mean of the standard deviation (n - 1 in its denominator) of so many Gaussian values over their true one: c4(n).

    >>> round(std_bias(2), 4), round(std_bias(10), 4)
    (0.7979, 0.9727)
    """
    return math.sqrt(2 / (number - 1)) * math.exp(math.lgamma(number / 2) - math.lgamma((number - 1) / 2))


def heat_map(values: np.ndarray, unit: str) -> np.ndarray:
    """Draw a map (H, W) in colour above a scale.

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
    bar = _written(width, [(f"{low:.3g}", False), (f"{high:.3g} {unit}", True)])
    return np.vstack([picture, np.full((GAP, width, 3), WHITE, np.uint8), scale, bar])


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize by nearest neighbour."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST))


def _written(width: int, texts: Sequence[tuple[str, bool]]) -> np.ndarray:
    """Write texts on a white bar, each on the left, or on the right."""
    bar = Image.new("RGB", (width, TITLE_HEIGHT), "white")
    draw = ImageDraw.Draw(bar)
    font = ImageFont.load_default(TITLE_SIZE)
    for text, right in texts:
        left = width - 2 - draw.textlength(text, font) if right else 2
        draw.text((left, 4), text, "black", font)
    return np.asarray(bar)


def _coloured(levels: np.ndarray) -> np.ndarray:
    place = levels.clip(0, 1)
    channels = [np.interp(place, np.linspace(0, 1, len(VIRIDIS)), VIRIDIS[:, channel]) for channel in range(3)]
    picture: np.ndarray = np.stack(channels, axis=-1).round().astype(np.uint8)
    return picture
