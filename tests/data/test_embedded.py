"""The data set that needs no download."""

from __future__ import annotations

from pathlib import Path

import pytest
import skimage

from srflow_plugin.data.embedded import PHOTOGRAPHS, prepare_embedded
from srflow_plugin.errors import UserError
from tests.helpers import read_pairs


def test_embedded_data_set_holds_one_photograph_out(tmp_path: Path) -> None:
    for phase in ("train", "val"):
        prepare_embedded(phase, tmp_path / f"{phase}_HR.lmdb", tmp_path / f"{phase}_LR.lmdb", 4)
    train = read_pairs(tmp_path / "train_HR.lmdb", tmp_path / "train_LR.lmdb")
    val = read_pairs(tmp_path / "val_HR.lmdb", tmp_path / "val_LR.lmdb")
    assert list(val) == ["chelsea"] and val["chelsea"][0].shape == (300, 448, 3)
    assert {key.rpartition("_s")[0] for key in train} == {Path(name).stem for name in PHOTOGRAPHS["train"]}
    assert all(hr.shape == (128, 128, 3) and lr.shape == (32, 32, 3) for hr, lr in train.values())
    written = (tmp_path / "val_HR.lmdb" / "data.mdb").stat().st_mtime_ns
    prepare_embedded("val", tmp_path / "val_HR.lmdb", tmp_path / "val_LR.lmdb", 4)  # a second time does nothing
    assert (tmp_path / "val_HR.lmdb" / "data.mdb").stat().st_mtime_ns == written


def test_a_scikit_image_without_the_photographs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skimage, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(UserError, match=r"does not carry chelsea\.png; pip install 'scikit-image"):
        prepare_embedded("val", tmp_path / "HR.lmdb", tmp_path / "LR.lmdb", 4)
