"""Choice of a network of the package by the picture: the one for clean photographs, or the one for real ones."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from srflow_plugin.checkpoints.shipped import AUTO, SHIPPED, Shipped, named_by
from srflow_plugin.errors import UserError
from srflow_plugin.images.damage import Damage, damage_of
from srflow_plugin.images.photographs import from_array, from_pillow
from srflow_plugin.images.rows import Rows, rows_of
from srflow_plugin.images.tensors import to_array


class Choice(NamedTuple):
    """Network for a picture, and what was found in the picture."""

    network: Shipped
    damage: Damage

    def __str__(self) -> str:
        return f"{self.damage}: {self.network.name}, the network for {self.network.purpose}"


def choose(rows: Rows) -> Choice:
    """Choose the network for an image by its damage.

    A face is never guessed: its network makes a face of whatever it sees.
    """
    damage = damage_of(rows)
    return Choice(SHIPPED["photo" if damage.is_slight else "real"], damage)


def checkpoint_for(
    image: np.ndarray | Image.Image | Tensor, word: str, checkpoint: str | Path | None, scale: int | None
) -> Path:
    """Find the network of the package that a word means for an image that :func:`upscale` takes.

    Raises:
        UserError: there is no such word, or it does not go with the image or the other arguments.
    """
    named = named_by(word, checkpoint, scale)
    return (named[0] if len(named) == 1 else choose(_rows(image)).network).path


def _rows(image: np.ndarray | Image.Image | Tensor) -> Rows:
    if isinstance(image, Tensor):
        if image.ndim == 4 and len(image) > 1:
            raise UserError(f"network {AUTO} is for one image, not for a batch of {len(image)}; name photo or real")
        return rows_of(from_array(to_array(image.reshape(-1, *image.shape[-2:]).clamp(0, 1))))
    if isinstance(image, Image.Image):
        tables = getattr(image, "quantization", None)
        return rows_of(from_pillow(image), tables)
    return rows_of(from_array(image))
