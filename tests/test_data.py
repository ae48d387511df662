"""The LR maker and the LMDBs."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from basicsr.utils.matlab_functions import imresize

from srflow_plugin import bicubic_downscale
from srflow_plugin.data import prepare
from srflow_plugin.data.embedded import PHOTOGRAPHS, prepare_embedded
from srflow_plugin.data.prepare import find_images, write_pairs
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
    count = write_pairs(find_images(tmp_path), hr_lmdb, lr_lmdb, 4, crop_size=32, num_workers=workers)
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


def test_a_failed_preparation_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ac":
        cv2.imwrite(str(tmp_path / f"{name}.png"), noise_image(16, 16))
    (tmp_path / "b.png").write_bytes(b"not an image")
    arguments = tmp_path / "HR.lmdb", tmp_path / "LR.lmdb", 4, 8
    with pytest.raises(UserError, match=r"b\.png is not a readable image"):
        write_pairs(find_images(tmp_path), *arguments)
    assert not (tmp_path / "HR.lmdb").exists() and (tmp_path / "HR.unfinished.lmdb").exists()

    made = []
    make = prepare.make_pairs
    monkeypatch.setattr(prepare, "make_pairs", lambda path, **options: made.append(path.name) or make(path, **options))
    cv2.imwrite(str(tmp_path / "a.png"), noise_image(20, 16))  # changed meanwhile
    (tmp_path / "b.png").unlink()
    assert write_pairs(find_images(tmp_path), *arguments) == 6 + 4
    assert made == ["a.png", "c.png"]
    pairs = read_dataset(*arguments[:2])
    assert len(pairs) == 10 and np.array_equal(pairs["a_s006"][0], noise_image(20, 16)[12:20, 8:16, ::-1])


def test_preparation_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no images"):
        find_images(tmp_path)
    cv2.imwrite(str(tmp_path / "a.png"), noise_image(16, 16))
    images = find_images(tmp_path)
    hr_lmdb, lr_lmdb = tmp_path / "HR.lmdb", tmp_path / "LR.lmdb"
    with pytest.raises(UserError, match="multiple of scale"):
        write_pairs(images, hr_lmdb, lr_lmdb, 4, crop_size=30)
    with pytest.raises(UserError, match="stored as 'a'"):
        write_pairs(images * 2, hr_lmdb, lr_lmdb, 4)
    with pytest.raises(UserError, match=r"both must end in \.lmdb"):
        write_pairs(images, tmp_path / "HR", lr_lmdb, 4)
    with pytest.raises(UserError, match="smaller than 32"):
        write_pairs(images, hr_lmdb, lr_lmdb, 32)
    with pytest.raises(UserError, match=r"a\.png is 16x16, smaller than center crop 20"):
        write_pairs(images, hr_lmdb, lr_lmdb, 4, center_crop=20)
    assert write_pairs(images, hr_lmdb, lr_lmdb, 4) == 1
    with pytest.raises(UserError, match="exists, made from other images or otherwise"):
        write_pairs(images, hr_lmdb, lr_lmdb, 2)
    cv2.imwrite(str(tmp_path / "b.png"), noise_image(16, 16))
    with pytest.raises(UserError, match="exists, made from other images or otherwise"):
        write_pairs(find_images(tmp_path), hr_lmdb, lr_lmdb, 4)


def contents(folder: Path) -> dict[str, Any]:
    with lmdb.open(str(folder), readonly=True, lock=False) as database, database.begin() as transaction:
        return {**dict(transaction.cursor()), "meta_info": (folder / "meta_info.txt").read_text()}


def test_a_killed_preparation_goes_on_and_a_complete_one_has_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(12):
        cv2.imwrite(str(images / f"{number}.png"), noise_image(400, 400, number))
    write_pairs(find_images(images), tmp_path / "a_HR.lmdb", tmp_path / "a_LRx4.lmdb", 4, 200, num_workers=1)
    command = [sys.executable, "-m", "srflow_plugin", "prepare", str(images), "-o", str(tmp_path / "b")]
    command += ["--crop-size", "200", "--workers", "1"]
    unfinished = tmp_path / "b_LRx4.unfinished.lmdb"
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    while process.poll() is None:
        if (unfinished / "data.mdb").exists() and (unfinished / "data.mdb").stat().st_size > 100_000:
            process.kill()
    assert process.wait() == -signal.SIGKILL and unfinished.is_dir()

    made = []
    make = prepare.make_pairs
    monkeypatch.setattr(prepare, "make_pairs", lambda path, **arguments: made.append(path) or make(path, **arguments))
    for _ in range(2):
        count = write_pairs(find_images(images), tmp_path / "b_HR.lmdb", tmp_path / "b_LRx4.lmdb", 4, 200)
        assert count == 12 * 4
    assert 0 < len(made) < 12 and len(set(made)) == len(made)
    for kind in ("HR", "LRx4"):
        assert contents(tmp_path / f"a_{kind}.lmdb") == contents(tmp_path / f"b_{kind}.lmdb")
    assert not list(tmp_path.glob("*unfinished*"))


def test_a_full_disk_is_seen_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), noise_image(16, 16))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Namespace(free=100))
    with pytest.raises(UserError, match=r"0\.0 GB free, the images need about"):
        write_pairs(find_images(tmp_path), tmp_path / "HR.lmdb", tmp_path / "LR.lmdb", 4)


def test_faces_are_cut_out_of_the_middle(tmp_path: Path) -> None:
    image = noise_image(30, 41)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    write_pairs(find_images(tmp_path), tmp_path / "HR.lmdb", tmp_path / "LR.lmdb", 8, center_crop=16)
    hr, lr = read_dataset(tmp_path / "HR.lmdb", tmp_path / "LR.lmdb", 8)["a"]
    assert np.array_equal(hr, image[7:23, 12:28, ::-1])
    assert np.array_equal(lr, bicubic_downscale(hr, 8))


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
