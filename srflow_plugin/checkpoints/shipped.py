"""Places of networks: files, those that come with the package, by scale and by name, the Hub. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from srflow_plugin.errors import UserError
from srflow_plugin.files import check_is_file

WEIGHTS = Path(__file__).parents[1] / "weights"
SHIPPED = {4: WEIGHTS / "srflow_x4.safetensors", 8: WEIGHTS / "srflow_x8_face.safetensors"}
DEFAULT_SCALE = 4
HUB = "hf://"


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
        if (scale or DEFAULT_SCALE) not in SHIPPED:
            raise UserError(
                f"scale {scale}: the package has networks for 4 (photographs) and 8 (faces); give a checkpoint"
            )
        return SHIPPED[scale or DEFAULT_SCALE]
    if is_address(name):
        from srflow_plugin.integrations.hub import fetched

        return fetched(str(name))
    path = Path(name)
    shipped = {weights.stem: weights for weights in SHIPPED.values()}
    if str(name) in shipped and not path.exists():
        return shipped[str(name)]
    check_is_file(path)
    return path
