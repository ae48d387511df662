"""HR images with their LR images, from files to a network and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from srflow_plugin import bicubic_downscale
from srflow_plugin.applications.pairs import read_lq, read_pair, to_picture, write_map, write_picture
from srflow_plugin.errors import UserError
from srflow_plugin.images.files import read_image, write_image
from srflow_plugin.images.tensors import to_tensor
from tests.helpers import noise_image, small_network


def test_a_pair_is_cropped_and_downscaled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = small_network()
    image = noise_image(23, 33)
    write_image(tmp_path / "hr.png", image)
    gt, lq = read_pair(network, tmp_path / "hr.png")
    assert f"{tmp_path / 'hr.png'}: cropped to 32x20, a multiple of 4" in capsys.readouterr().err
    assert torch.equal(gt, to_tensor(image[:20, :32]))
    small = bicubic_downscale(np.ascontiguousarray(image[:20, :32]), 4)
    assert torch.equal(lq, to_tensor(small))
    write_image(tmp_path / "lr.png", small)
    assert torch.equal(read_lq(network, tmp_path / "lr.png"), lq)
    assert torch.equal(read_pair(network, tmp_path / "hr.png", tmp_path / "lr.png")[1], lq)


def test_sizes_that_do_not_fit_are_named(tmp_path: Path) -> None:
    network = small_network()
    for name, size in (("hr", (20, 32)), ("other", (24, 32)), ("tiny", (3, 32)), ("lr", (5, 9))):
        write_image(tmp_path / f"{name}.png", noise_image(*size))
    gt, _ = read_pair(network, tmp_path / "hr.png")
    with pytest.raises(UserError, match=r"other\.png has 32x24 pixels, not 32x20 as the other image"):
        read_pair(network, tmp_path / "other.png", like=gt)
    with pytest.raises(UserError, match=r"tiny\.png is smaller than 4 pixels"):
        read_pair(network, tmp_path / "tiny.png")
    with pytest.raises(UserError, match=r"lr\.png has 9x5 pixels; .*hr\.png needs 8x5"):
        read_pair(network, tmp_path / "hr.png", tmp_path / "lr.png")


def test_a_picture_is_rounded_and_says_where_it_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    image = torch.full((1, 3, 2, 4), 0.5)
    assert (to_picture(image) == 128).all() and capsys.readouterr().err == ""
    image[0, 1, 0, 0], image[0, 0, 1, 1] = torch.nan, 7.0
    to_picture(image)
    assert "2 of 8 pixels are not finite or far outside [0, 1]" in capsys.readouterr().err


def test_maps_and_pictures_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = torch.arange(24.0).view(1, 4, 6)
    write_map(tmp_path / "map.npy", values, "bits/dim")
    assert np.array_equal(np.load(tmp_path / "map.npy"), values[0].numpy())
    write_map(tmp_path / "map.png", values, "bits/dim")
    assert read_image(tmp_path / "map.png").shape[1] == 6
    told = capsys.readouterr()
    assert told.out.splitlines().count("mean 11.5000 bits/dim") == 2 and not told.err
    write_map(tmp_path / "map.npy", torch.where(values > 20, torch.nan, values), "bits/dim")
    assert capsys.readouterr().err == "3 of 24 pixels are not finite: the network does not know such an image\n"
    write_picture(tmp_path / "picture.png", noise_image(4, 6))
    assert np.array_equal(read_image(tmp_path / "picture.png"), noise_image(4, 6))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{tmp_path / 'picture.png'} is written."
