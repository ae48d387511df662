"""The LR maker and the LMDBs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from basicsr.utils.matlab_functions import imresize

from srflow_plugin import bicubic_downscale
from srflow_plugin.data.embedded import PHOTOGRAPHS, prepare_embedded
from srflow_plugin.data.prepare import find_images, write_lmdb_pair
from srflow_plugin.data.resize import differentiable_downscale
from srflow_plugin.errors import UserError

MATLAB_OUTPUTS = [
    ("Set5/HR", "Set5/LRx4", 4, "replicate", 5),
    ("Set14/HR", "Set14/LRx4", 4, "replicate", 14),
    ("Set5/HR", "Set5/LRx4_sym", 4, "symmetric", 5),
    ("faces/pairs_x8_sym/HR", "faces/pairs_x8_sym/LRx8", 8, "symmetric", 6),
]


def noise_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("hr", "lr", "scale", "border", "count"), MATLAB_OUTPUTS)
def test_downscale_is_matlabs_bit_for_bit(
    shared_data: Path, hr: str, lr: str, scale: int, border: str, count: int
) -> None:
    images = find_images(shared_data / hr)
    assert len(images) == count
    for path in images:
        expected = cv2.imread(str(shared_data / lr / path.name))
        height, width = (scale * size for size in expected.shape[:2])
        actual = bicubic_downscale(cv2.imread(str(path))[:height, :width], scale, border)  # type: ignore[arg-type]
        assert np.array_equal(actual, expected), path.name


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_downscale_agrees_with_basicsr_up_to_rounding(scale: int) -> None:
    image = noise_image(12 * scale, 7 * scale)
    tensor = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))
    expected = imresize(tensor, 1 / scale).numpy().transpose(1, 2, 0).clip(0, 255)
    actual = bicubic_downscale(image, scale)
    assert actual.shape == (12, 7, 3) and actual.dtype == np.uint8
    assert np.abs(actual - expected).max() < 2  # BasicSR does not round between the dimensions


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("border", ["symmetric", "replicate"])
def test_differentiable_downscale_is_the_same_filter(scale: int, border: Any) -> None:
    grey = np.random.default_rng(scale).integers(96, 160, (scale * 40, scale * 3), dtype=np.uint8)
    image = cv2.GaussianBlur(grey, (5, 5), 1)  # no value is clipped, so that rounding alone is between the two
    small = differentiable_downscale(torch.from_numpy(image)[None, None].double(), scale, border)
    assert np.abs(small[0, 0].numpy() - bicubic_downscale(image, scale, border)).max() <= 1.2
    assert small.shape == (1, 1, 40, 3)


def test_differentiable_downscale_has_gradients() -> None:
    images = torch.rand(2, 1, 8, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda images: differentiable_downscale(images, 4), images)


def test_downscale_keeps_constants_and_grey_images() -> None:
    for border in ("symmetric", "replicate"):
        assert (bicubic_downscale(np.full((8, 16), 77, np.uint8), 4, border) == 77).all()


def test_downscale_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="uint8"):
        bicubic_downscale(np.zeros((8, 8, 3)), 4)
    with pytest.raises(ValueError, match="multiples of 4"):
        bicubic_downscale(np.zeros((8, 10, 3), np.uint8), 4)
    with pytest.raises(ValueError, match="border"):
        bicubic_downscale(np.zeros((8, 8, 3), np.uint8), 4, "reflect")  # type: ignore[arg-type]


def read_dataset(hr_lmdb: Path, lr_lmdb: Path, scale: int = 4) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """All pairs, as BasicSR's own data set reads them: key -> (HR, LR), uint8 RGB."""
    dataset = build_dataset(
        {
            "name": "test",
            "type": "PairedImageDataset",
            "dataroot_gt": str(hr_lmdb),
            "dataroot_lq": str(lr_lmdb),
            "io_backend": {"type": "lmdb"},
            "phase": "val",
            "scale": scale,
        }
    )

    def picture(tensor: torch.Tensor) -> np.ndarray:
        return (255 * tensor.numpy().transpose(1, 2, 0)).round().astype(np.uint8)

    return {
        item["gt_path"]: (picture(item["gt"]), picture(item["lq"]))
        for item in map(dataset.__getitem__, range(len(dataset)))
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_tiles_cover_the_image_and_know_their_surroundings(tmp_path: Path, workers: int) -> None:
    image = noise_image(41, 70)
    for name in ("a.png", "b.c.png"):
        cv2.imwrite(str(tmp_path / name), image)
    hr_lmdb, lr_lmdb = tmp_path / "HR.lmdb", tmp_path / "LR.lmdb"
    count = write_lmdb_pair(find_images(tmp_path), hr_lmdb, lr_lmdb, 4, crop_size=32, num_workers=workers)
    pairs = read_dataset(hr_lmdb, lr_lmdb)
    assert count == len(pairs) == 2 * 2 * 3
    assert {key.rpartition("_")[0] for key in pairs} == {"a", "b_c"}
    assert sorted(path.name for path in tmp_path.glob("*.lmdb")) == ["HR.lmdb", "LR.lmdb"]

    rgb = image[:40, :68, ::-1]
    small = bicubic_downscale(np.ascontiguousarray(rgb), 4)
    corners = [(top, left) for top in (0, 8) for left in (0, 32, 36)]
    for number, (top, left) in enumerate(corners, start=1):
        hr, lr = pairs[f"a_s{number:03d}"]
        assert np.array_equal(hr, rgb[top : top + 32, left : left + 32])
        assert np.array_equal(lr, small[top // 4 : top // 4 + 8, left // 4 : left // 4 + 8])


def test_nothing_is_left_of_a_failed_preparation(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), noise_image(16, 16))
    (tmp_path / "b.png").write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"b\.png is not a readable image"):
        write_lmdb_pair(find_images(tmp_path), tmp_path / "HR.lmdb", tmp_path / "LR.lmdb", 4)
    assert list(tmp_path.glob("*.lmdb")) == []


def test_preparation_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no images"):
        find_images(tmp_path)
    cv2.imwrite(str(tmp_path / "a.png"), noise_image(16, 16))
    images = find_images(tmp_path)
    hr_lmdb, lr_lmdb = tmp_path / "HR.lmdb", tmp_path / "LR.lmdb"
    with pytest.raises(UserError, match="multiple of scale"):
        write_lmdb_pair(images, hr_lmdb, lr_lmdb, 4, crop_size=30)
    with pytest.raises(UserError, match="stored as 'a'"):
        write_lmdb_pair(images * 2, hr_lmdb, lr_lmdb, 4)
    with pytest.raises(UserError, match=r"must end in \.lmdb"):
        write_lmdb_pair(images, tmp_path / "HR", lr_lmdb, 4)
    with pytest.raises(UserError, match="smaller than 32"):
        write_lmdb_pair(images, hr_lmdb, lr_lmdb, 32)
    write_lmdb_pair(images, hr_lmdb, lr_lmdb, 4)
    with pytest.raises(UserError, match="exists"):
        write_lmdb_pair(images, hr_lmdb, lr_lmdb, 4)


def test_embedded_data_set_holds_one_photograph_out(tmp_path: Path) -> None:
    for phase in ("train", "val"):
        prepare_embedded(phase, tmp_path / f"{phase}_HR.lmdb", tmp_path / f"{phase}_LR.lmdb", 4)
    train = read_dataset(tmp_path / "train_HR.lmdb", tmp_path / "train_LR.lmdb")
    val = read_dataset(tmp_path / "val_HR.lmdb", tmp_path / "val_LR.lmdb")
    assert list(val) == ["chelsea"] and val["chelsea"][0].shape == (300, 448, 3)
    assert {key.rpartition("_s")[0] for key in train} == {Path(name).stem for name in PHOTOGRAPHS["train"]}
    assert all(hr.shape == (128, 128, 3) and lr.shape == (32, 32, 3) for hr, lr in train.values())
    written = (tmp_path / "val_HR.lmdb" / "data.mdb").stat().st_mtime_ns
    prepare_embedded("val", tmp_path / "val_HR.lmdb", tmp_path / "val_LR.lmdb", 4)  # a second time does nothing
    assert (tmp_path / "val_HR.lmdb" / "data.mdb").stat().st_mtime_ns == written
