"""Places of networks: files, those that come with the package, by scale and by name, the Hub. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from srflow_plugin.errors import UserError, close_match, nearest
from srflow_plugin.files import check_is_file

WEIGHTS = Path(__file__).parents[1] / "weights"
HUB = "hf://"


class Shipped(NamedTuple):
    """Network that comes with the package.

    Attributes:
        name: wherever a checkpoint is asked for; its file has it as well.
        scale: of the network.
        purpose: pictures that it is for.
    """

    name: str
    scale: int
    purpose: str

    @property
    def path(self) -> Path:
        """File of its weights."""
        return WEIGHTS / f"{self.name}.safetensors"


# By the words of --network. Of a scale the first is the default.
SHIPPED = {
    "photo": Shipped("srflow_x4", 4, "clean photographs"),
    "real": Shipped("srflow_x4_real", 4, "real photographs"),
    "face": Shipped("srflow_x8_face", 8, "aligned faces"),
}
DEFAULT_SCALE = SHIPPED["photo"].scale
BY_NAME = {one.name: one for one in SHIPPED.values()}
AUTO = "auto"  # the picture says which of CHOSEN is for it
CHOSEN = ("photo", "real")
WORDS = (AUTO, *SHIPPED)


def is_address(name: str | Path) -> bool:
    """Tell an address of the Hub from a name of a file."""
    return str(name).startswith(HUB)


def find_checkpoint(name: str | Path | None, scale: int | None = None) -> Path:
    """Path of a checkpoint: a file, a network of the package by its name, or by default the one for ``scale``.

    An address of the Hugging Face Hub, ``hf://user/name``, is fetched (:mod:`srflow_plugin.integrations.hub`).

    >>> find_checkpoint(None, 8).name, find_checkpoint("srflow_x4").name
    ('srflow_x8_face.safetensors', 'srflow_x4.safetensors')

    Raises:
        UserError: there is none.
    """
    if name is None:
        return _for_scale(scale or DEFAULT_SCALE).path
    if is_address(name):
        from srflow_plugin.integrations.hub import fetched

        return fetched(str(name))
    path = Path(name)
    if str(name) in BY_NAME and not path.exists():
        return BY_NAME[str(name)].path
    if (meant := close_match(name, BY_NAME)) and not path.exists():
        raise UserError(f"{path} does not exist{meant}")
    check_is_file(path)
    return path


def _for_scale(scale: int) -> Shipped:
    for one in SHIPPED.values():
        if one.scale == scale:
            return one
    raise UserError(f"scale {scale}: the package has networks for 4 (photographs) and 8 (faces); give a checkpoint")


def named_by(word: str, checkpoint: str | Path | None = None, scale: int | None = None) -> list[Shipped]:
    """List the networks that a word of WORDS means: one, or for "auto" those among which the picture chooses.

    >>> [one.name for one in named_by("auto")]
    ['srflow_x4', 'srflow_x4_real']

    Raises:
        UserError: there is no such word, or it does not go with a checkpoint or a scale.
    """
    if word not in WORDS:
        raise UserError(f"network {word!r} is not known{nearest(word, WORDS)}")
    if checkpoint is not None:
        raise UserError(f"network {word} and checkpoint {checkpoint} are two answers to one question; give one of them")
    named = [SHIPPED[one] for one in (CHOSEN if word == AUTO else [word])]
    if scale not in (None, named[0].scale):
        fitting = [other for other, one in SHIPPED.items() if one.scale == scale]
        hint = f", or choose {' or '.join(fitting)}" if fitting else ""
        raise UserError(f"network {word} is of scale {named[0].scale}, not {scale}; leave the scale out{hint}")
    return named


def candidates(word: str | None, checkpoint: str | Path | None, scale: int | None) -> list[Path]:
    """Find the checkpoint that is asked for, or those among which the pictures choose.

    Without a word, a checkpoint or another scale than the default one the pictures choose.
    """
    if word is None and (checkpoint is not None or scale not in (None, DEFAULT_SCALE)):
        return [find_checkpoint(checkpoint, scale)]
    return [one.path for one in named_by(word or AUTO, checkpoint, scale)]
