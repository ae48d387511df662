"""The embedded default data set: the colour photographs that scikit-image's wheel carries. No download.

scikit-image comes with BasicSR. An option file asks for the set with ``prepare: embedded`` in a data set's section.
"""

from __future__ import annotations

from pathlib import Path

import skimage

from srflow_plugin.data.prepare import write_pairs
from srflow_plugin.errors import UserError

PHOTOGRAPHS = {
    "train": ("astronaut.png", "coffee.png", "hubble_deep_field.jpg", "motorcycle_left.png", "rocket.jpg"),
    "val": ("chelsea.png",),
}
CROP_SIZE = {"train": 128, "val": None}


def prepare_embedded(phase: str, hr_lmdb: Path, lr_lmdb: Path, scale: int) -> None:
    """Write the two LMDBs of a phase ("train" or "val": one photograph held out), unless they are there."""
    if hr_lmdb.exists() and lr_lmdb.exists():
        return
    folder = Path(skimage.__file__).parent / "data"
    photographs = [folder / name for name in PHOTOGRAPHS[phase]]
    missing = [path.name for path in photographs if not path.exists()]
    if missing:
        raise UserError(f"this scikit-image does not carry {', '.join(missing)}; pip install 'scikit-image>=0.22'")
    write_pairs(photographs, hr_lmdb, lr_lmdb, scale, CROP_SIZE[phase])
