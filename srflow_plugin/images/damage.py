"""Damage of a picture, measured in its pixels: JPEG compression and noise. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from srflow_plugin.images.photographs import Photograph, together
from srflow_plugin.images.rows import Rows

LEAST_QUALITY = 85.0  # of JPEG compression that the network for clean pictures takes better
MOST_NOISE = 3.0  # grey levels that are none, or texture
SIDE = 1024  # pixels of the middle of a picture that are looked at
JPEG_SIDE = 512  # of these, those in which marks of JPEG are looked for
BLOCK = 8
ZERO = 0.5  # coefficients below it were zero before the pixels were rounded
SURE = 1.5  # coefficients from it on were not zero
MORE_ZEROS = 0.02  # share of coefficients that are zero in JPEG's own grid alone
OF_FEW = 0.5  # that share grows by this over the number of blocks: few have more by chance
QUALITIES = range(10, 100)
GREY, CHROMA = 1.8, 4.0  # times the diagonal detail that the other detail of noise is at most, squared
FLATTEST = 0.05  # share of a picture's blocks
OF_FLATTEST = 0.9  # their noise, as a share of the picture's: that it is weak there is one reason that they are flat
FEWEST = 16  # blocks that a measure of noise needs
CLIPPED = 0.25  # share of a block's pixels that may be black or white, where noise does not show
# Steps of the luminance in quality 50 (ITU-T T.81, table K.1).
STEPS = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_frequency, _place = np.mgrid[:BLOCK, :BLOCK]
COSINES = (np.cos((2 * _place + 1) * _frequency * np.pi / 16) / np.where(_frequency, 2, 8**0.5)).astype(np.float32)

Tables = Mapping[int, Sequence[int]]


class Damage(NamedTuple):
    """Damage of a picture.

    Attributes:
        quality: of its JPEG compression, about that of libjpeg, 1 to 100; None where no mark of it was found.
        noise: standard deviation in grey levels; 0 where none was found.
    """

    quality: float | None = None
    noise: float = 0.0

    @property
    def is_slight(self) -> bool:
        """Say that a network for clean pictures can take the picture."""
        return (self.quality is None or self.quality >= LEAST_QUALITY) and self.noise < MOST_NOISE

    def __str__(self) -> str:
        """Say it in words.

        >>> str(Damage(71.6, 6.1)), str(Damage())
        ('JPEG of quality about 72, noise of about 6 grey levels', 'neither JPEG nor noise found')
        """
        words = [] if self.quality is None else [f"JPEG of quality about {self.quality:.0f}"]
        words += [f"noise of about {self.noise:.0f} grey levels"] if self.noise >= MOST_NOISE else []
        return ", ".join(words) or "neither JPEG nor noise found"


def damage_of(rows: Rows) -> Damage:
    """Measure the damage of an image whose rows come from top to bottom, in its middle."""
    top, left = (max(0, length - SIDE) // 2 for length in (rows.height, rows.width))
    parts: list[Photograph] = []
    first = 0
    for band in rows.bands():
        wanted = slice(max(0, top - first), top + SIDE - first), slice(left, left + SIDE)
        parts.append(band._replace(rgb=band.rgb[wanted], alpha=None))
        first += len(band.rgb)
        if first >= top + SIDE:
            break
    return measure(together(parts).rgb, rows.tables)


def measure(rgb: np.ndarray, tables: Tables | None = None) -> Damage:
    """Measure the damage of an image, (H, W, 3) in [0, 1].

    Args:
        rgb: the image.
        tables: those by which it was quantised, where it is a JPEG file.
    """
    grey = 255 * rgb
    said, found = quality_of(tables) if tables else None, jpeg_quality(grey)
    qualities = [quality for quality in (said, found) if quality is not None]
    return Damage(min(qualities, default=None), noise_of(grey))


def quality_of(tables: Tables) -> float:
    """Estimate the quality that libjpeg's scaling of the standard table makes a file's table of.

    >>> quality_of({0: [8] * 64}) > quality_of({0: [80] * 64})
    True
    """
    table = np.array(tables[min(tables)], float)
    percent = 100 * table.sum() / STEPS.sum()
    return float(np.clip(100 - percent / 2 if percent <= 100 else 5000 / percent, 1, 100))


def jpeg_quality(grey: np.ndarray) -> float | None:
    """Find marks of JPEG compression in (H, W, 3), in grey levels, and estimate its quality; None where are none.

    In the grid of 8 x 8 pixels in which a picture was compressed far more coefficients of the cosine transform are zero
    than in the 63 others (T. Nikoukhah and others, "ZERO: a Local JPEG Grid Origin Detector Based on the Number of DCT
    Zeros", IPOL 2021). There they lie at multiples of the steps of one quality.
    """
    top, left = (max(0, length - JPEG_SIDE) // 2 for length in grey.shape[:2])
    grey = grey[top : top + JPEG_SIDE, left : left + JPEG_SIDE]
    if min(grey.shape[:2]) < 2 * BLOCK:
        return None
    luminance = grey @ LUMINANCE
    shares: list[float] = []
    for x in range(BLOCK):
        lines = _transformed(luminance[:, x:])
        shares += [_zeros(_transformed(lines[y:].T)) for y in range(BLOCK)]
    best, second = np.argsort(shares)[:-3:-1]
    blocks = (grey.shape[0] // BLOCK) * (grey.shape[1] // BLOCK)
    if not shares[best] - shares[second] > MORE_ZEROS + OF_FEW / blocks:
        return None
    x, y = divmod(int(best), BLOCK)
    return _fitting_quality(_blocks(_transformed(_transformed(luminance[:, x:])[y:].T)), _clipped(grey[y:, x:]))


def _transformed(grey: np.ndarray) -> np.ndarray:
    """Transform the rows of (H, W), eight pixels at a time."""
    width = grey.shape[1] // BLOCK * BLOCK
    lines: np.ndarray = (grey[:, :width].reshape(-1, BLOCK) @ COSINES.T).reshape(len(grey), width)
    return lines


def _blocks(coefficients: np.ndarray) -> np.ndarray:
    """Arrange coefficients (W, H), transformed both ways, as (N, 64), the mean of each block first."""
    columns, rows = (length // BLOCK for length in coefficients.shape)
    blocks: np.ndarray = coefficients.reshape(columns, BLOCK, rows, BLOCK).transpose(0, 2, 3, 1).reshape(-1, BLOCK**2)
    return blocks


def _zeros(coefficients: np.ndarray) -> float:
    """Share of zeros among the coefficients of blocks that are not all of one colour, but for their means."""
    details = np.abs(_blocks(coefficients)[:, 1:])
    details = details[details.max(axis=1) > 1e-2]
    return float((details < ZERO).mean()) if len(details) else 0.0


def _fitting_quality(blocks: np.ndarray, clipped: np.ndarray) -> float:
    """Find the quality at multiples of whose steps the coefficients lie best, also in a picture that was turned.

    Blocks with clipped pixels, (H, W), are left out, unless all are: clipping has moved their coefficients.
    """
    height, width = (length // BLOCK * BLOCK for length in clipped.shape)
    parts = clipped[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    whole = ~parts.any(axis=(1, 3)).T.ravel()
    values = np.abs(blocks[whole if whole.any() else slice(None), 1:])
    frequencies = np.nonzero(values >= SURE)[1] + 1
    values = values[values >= SURE]

    def fit(quality: int) -> float:
        percent = 5000 / quality if quality < 50 else 200 - 2 * quality
        fits = []
        for table in (STEPS, STEPS.T):
            steps = np.clip((table.ravel() * percent + 50) // 100, 1, 255)[frequencies]
            fits.append(np.where(values < steps / 2, -1, np.cos(2 * np.pi * values / steps)).sum())
        return float(max(fits))

    return float(max(QUALITIES, key=fit))


def _clipped(grey: np.ndarray) -> np.ndarray:
    """Find pixels of (H, W, 3) in which a colour may have been cut off."""
    clipped: np.ndarray = np.any((grey <= 0) | (grey >= 255), axis=2)
    return clipped


def noise_of(grey: np.ndarray) -> float:
    """Estimate the standard deviation of noise in (H, W, 3), in its grey levels; 0 where there is none.

    Noise is what the flattest blocks hold. It is as strong in the diagonal detail of the Haar transform as in the
    other two, while texture is weaker there. Colours differ less in texture than in noise, so they are looked at apart.
    """
    clipped = _clipped(grey)
    if min(clipped.shape) <= BLOCK:
        return 0.0
    usable = _means(clipped[:-1, :-1].astype(np.float64)) <= CLIPPED
    red, green, blue = np.moveaxis(grey.astype(np.float64), 2, 0)
    return max(
        _noise_of_plane((red + green + blue) / 3, usable, GREY),
        _noise_of_plane((red - 2 * green + blue) / 6**0.5, usable, CHROMA),
        _noise_of_plane((red - blue) / 2**0.5, usable, CHROMA),
    )


def _noise_of_plane(plane: np.ndarray, usable: np.ndarray, most: float) -> float:
    a, b, c, d = plane[:-1, :-1], plane[:-1, 1:], plane[1:, :-1], plane[1:, 1:]
    diagonal = _means(((a - b - c + d) / 2) ** 2)[usable]
    other = _means((((a - b + c - d) / 2) ** 2 + ((a + b - c - d) / 2) ** 2) / 2)[usable]
    if len(diagonal) < FEWEST:
        return 0.0
    flattest = np.argsort(other)[: max(FEWEST // 4, int(FLATTEST * len(other)))]
    strength, beside = np.median(diagonal[flattest]), np.median(other[flattest])
    return float(strength**0.5) / OF_FLATTEST if beside < most * strength else 0.0


def _means(values: np.ndarray) -> np.ndarray:
    """Means of blocks of 8 x 8, every four pixels."""
    sums = np.pad(values, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    means = (sums[BLOCK:, BLOCK:] - sums[:-BLOCK, BLOCK:] - sums[BLOCK:, :-BLOCK] + sums[:-BLOCK, :-BLOCK]) / BLOCK**2
    flat: np.ndarray = means[:: BLOCK // 2, :: BLOCK // 2].clip(0).ravel()
    return flat
