"""Files of safetensors that carry a hash of themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file, save

from srflow_plugin.checkpoints.sealed import HASH_KEY, read_sealed, sealed
from srflow_plugin.checkpoints.shipped import SHIPPED
from srflow_plugin.errors import UserError

TENSORS = {
    "b": torch.arange(6.0).reshape(2, 3).T,
    'a "quoted\\name": {}': torch.tensor([1, 2], dtype=torch.int8),
    "é": torch.tensor(1.5, dtype=torch.float64),
    "none": torch.zeros(0),
    "flag": torch.tensor(True),
}


def test_tensors_and_metadata_come_back_and_others_read_them(tmp_path: Path) -> None:
    metadata = {"z": 'with "quotes"', "a": f'"{HASH_KEY}":"'}
    content = sealed(TENSORS, metadata)
    assert content == sealed(TENSORS, metadata)
    (tmp_path / "a").write_bytes(content)
    tensors, described = read_sealed(tmp_path / "a")
    assert len(described.pop(HASH_KEY)) == 64 and described == metadata
    for read in (tensors, load(content), load_file(tmp_path / "a")):
        assert read.keys() == TENSORS.keys()
        assert all(torch.equal(read[key], value) and read[key].dtype == value.dtype for key, value in TENSORS.items())
    (tmp_path / "a").write_bytes(b"")  # what was read is in memory, whatever becomes of the file
    assert tensors["b"].sum() == 15


def test_every_bit_counts(tmp_path: Path) -> None:
    path, content = tmp_path / "a", sealed({"a": torch.ones(3)})
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            tensors, metadata = read_sealed(path)
        except Exception:
            continue
        assert HASH_KEY not in metadata and tensors["a"].tolist() == [1, 1, 1], place


def test_files_of_others_have_no_hash_and_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(save({"a": torch.ones(3)}, {"format": "pt"}))
    tensors, metadata = read_sealed(tmp_path / "a")
    assert tensors["a"].tolist() == [1, 1, 1] and metadata == {"format": "pt"}


def test_the_networks_of_the_package_are_sealed(tmp_path: Path) -> None:
    for one in SHIPPED.values():
        content = one.path.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        assert HASH_KEY in header["__metadata__"] and read_sealed(one.path)
        (tmp_path / "a").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(UserError, match="a is damaged: it has changed since it was written"):
            read_sealed(tmp_path / "a")
