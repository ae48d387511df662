"""Images that training and validation read: as BasicSR reads them; what cannot be used is named, or skipped."""

from __future__ import annotations

import pickle
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import mmcv
import numpy as np
import pytest
import torch
import yaml
from basicsr.data import build_dataset
from PIL import Image

from srflow_plugin.data import checked
from srflow_plugin.data.build import checked_images
from srflow_plugin.data.checked import BadImageError, CheckedImages, check_image, decode_image, is_truncated, read_bgr
from srflow_plugin.errors import UserError
from srflow_plugin.options.schema import Section
from srflow_plugin.training.stop import StopBetweenImages, StopRequest
from tests.helpers import UNIX, noise_image, train, truncate
from tests.stress.hostile import POSTSCRIPT, lying, png, resized, tiff

GREY = "x is grey; it is used as three equal channels"


def encoded(image: np.ndarray, ending: str = ".png") -> bytes:
    return bytes(cv2.imencode(ending, image)[1].tobytes())


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_images_of_every_kind(ending: str, tmp_path: Path) -> None:
    image = noise_image(9, 12)
    data = encoded(image, ending)
    assert check_image(data, "x") == ""
    expected: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    (tmp_path / "x").write_bytes(data)
    assert np.array_equal(decode_image(data, "x"), expected) and np.array_equal(read_bgr(tmp_path / "x"), expected)
    if ending in (".png", ".bmp", ".tif"):
        assert np.array_equal(expected, image)


@pytest.mark.parametrize("ending", [".png", ".tif", ".jpg"])
def test_grey_images_become_colour(ending: str) -> None:
    data = encoded(noise_image(9, 12)[..., 0], ending)
    assert check_image(data, "x") == ("" if ending == ".jpg" else GREY)
    image = decode_image(data, "x")
    assert image.shape == (9, 12, 3) and (image == image[..., :1]).all()


@pytest.mark.parametrize(
    ("image", "ending", "message"),
    [
        (noise_image(9, 12).astype(np.uint16), ".png", "x has 16 bits a channel; convert it to 8"),
        (noise_image(9, 12).astype(np.uint16), ".tif", "x has 16 bits a channel; convert it to 8"),
        (noise_image(9, 12).astype(np.float32), ".tif", "x has 32 bits a channel; convert it to 8"),
        (noise_image(9, 12)[..., [0, 1, 2, 0]], ".png", "x has an alpha channel; remove it"),
        (noise_image(9, 12)[..., [0, 1, 2, 0]], ".tif", "x has an alpha channel; remove it"),
    ],
)
def test_images_that_opencv_would_change(image: np.ndarray, ending: str, message: str) -> None:
    for look in (check_image, decode_image):
        with pytest.raises(UserError, match=f"^{message}"):
            look(encoded(image, ending), "x")


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_images_that_are_not_whole(ending: str, tmp_path: Path) -> None:
    data = encoded(noise_image(9, 12), ending)
    for behind in (b"\0\r\n ", b"a film, as phones put it behind a photograph", data[:50], b"\xff\xd9"):
        assert check_image(data + behind, "x") == ""
    for cut in (1, 3, len(data) // 2):
        with pytest.raises(UserError, match="x is truncated; fetch or make it again"):
            check_image(data[:-cut], "x")
    for broken in (b"", b"text", data[:20]):
        with pytest.raises(UserError, match=r"x is (not a readable image|truncated); fetch or make it again"):
            decode_image(broken, "x")
    with pytest.raises(UserError, match="none does not exist; correct the path"):
        read_bgr(tmp_path / "none")


SIZES_THAT_LIE: dict[str, tuple[bytes, str]] = {
    "a text of two GiB": (png(middle=lying(b"tEXt", 0x7FFFFFFF)), "x is truncated; fetch or make it again"),
    "an end of two GiB": (png(end=lying(b"IEND", 0x7FFFFFFF)), "x is truncated; fetch or make it again"),
    "PNG": (png(width=20_000, height=20_000, pixels=b""), "x has 20,000 x 20,000 pixels, more than 89,478,485; cut it"),
    "JPEG": (resized("JPEG", 65_535, 65_535), "x has 65,535 x 65,535 pixels, more than 89,478,485; cut it"),
    "TIFF": (tiff((256, 4, 1, 2**31 - 1), (257, 4, 1, 2**31 - 1)), "x has 2,147,483,647 x 2,147,483,647 pixels, more"),
    "BMP": (resized("BMP", 20_000, -20_000), "x has 20,000 x 20,000 pixels, more than 89,478,485; cut it"),
    "PostScript": (POSTSCRIPT, "x is not a readable image: it is PostScript; export it as PNG"),
    "memory": (png(width=9_000, height=9_000, pixels=b""), "x needs 0.5 GiB of memory, of which 0.0 are free"),
}


@pytest.mark.parametrize("kind", SIZES_THAT_LIE)
def test_no_decoder_sees_what_asks_for_too_much(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, message = SIZES_THAT_LIE[kind]
    monkeypatch.setattr(mmcv, "imfrombytes", pytest.fail)
    monkeypatch.setattr(checked, "available_bytes", lambda: 2**20)
    with pytest.raises(UserError) as told:
        decode_image(data, "x")
    assert str(told.value).startswith(message) and str(told.value).isprintable()


def test_the_system_is_not_asked_for_the_memory_of_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer to answer than a tile to be decoded."""
    available = Mock(return_value=2**40)
    monkeypatch.setattr(checked, "available_bytes", available)
    check_image(png(width=1000, height=1000, pixels=b""), "x")
    assert available.call_count == 0
    check_image(png(width=3000, height=3000, pixels=b""), "x")
    assert available.call_count == 1


@pytest.mark.parametrize("settings", [{"exif": b"Exif\0\0" + b"\xff\xd9" * 9}, {"progressive": True}, {"restart": 1}])
def test_a_jpeg_file_ends_where_its_own_end_is(settings: dict[str, Any]) -> None:
    file = BytesIO()
    restart = {"restart_marker_blocks": settings.pop("restart")} if "restart" in settings else {}
    Image.fromarray(noise_image(33, 47)).save(file, "JPEG", **settings, **restart)
    data = file.getvalue()
    assert not is_truncated(data) and all(is_truncated(data[:end]) for end in range(3, len(data)))


def test_samples_are_basicsrs(tiny_options: Section) -> None:
    opt = tiny_options["datasets"]["val"]
    theirs = build_dataset(opt)[0]
    sample = CheckedImages(build_dataset(opt))[0]
    assert sample.pop("note") == "" and sample.keys() == theirs.keys()
    assert torch.equal(sample["gt"], theirs["gt"]) and torch.equal(sample["lq"], theirs["lq"])
    assert (sample["gt_path"], sample["lq_path"]) == (theirs["gt_path"], theirs["lq_path"])


def test_images_are_in_the_order_of_their_names(tiny_options: Section) -> None:
    class Listed:
        opt: Section = {}
        paths = [{"lq_path": name} for name in "bca"]

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> dict[str, Any]:
            return self.paths[index]

    images = CheckedImages(Listed())
    assert [images[number]["lq_path"] for number in range(3)] == ["a", "b", "c"]


def test_the_text_of_a_workers_traceback_ends_with_ours() -> None:
    told = BadImageError("a.png is truncated")
    assert str(BadImageError(f"Traceback ...\nsrflow_plugin.data.checked.BadImageError: {told}\n")) == str(told)


def test_validation_names_a_pair_that_does_not_fit(tiny_options: Section) -> None:
    dataset = build_dataset({**tiny_options["datasets"]["val"], "scale": 8})
    with pytest.raises(BadImageError, match=r"data/val_HR.lmdb: 0 is 52x44 and data/val_LRx4.lmdb: 0 13x11: not 8"):
        CheckedImages(dataset)[0]


# -- in a training -----------------------------------------------------------------------------------------------------


def write(path: Path, image: np.ndarray) -> None:
    assert cv2.imwrite(str(path), image)


@pytest.fixture
def folders(workplace: Path) -> Path:
    """The training images as files in pairs/HR and pairs/LR, with tiny.yml reading them."""
    for kind, size in (("HR", (52, 44)), ("LR", (13, 11))):
        (workplace / "pairs" / kind).mkdir(parents=True)
        for path in (workplace / "images" / "train").iterdir():
            write(workplace / "pairs" / kind / path.name, cv2.resize(read_bgr(path), size))
    return workplace / "pairs"


FROM_FOLDERS = [
    "datasets:train:dataroot_gt=pairs/HR",
    "datasets:train:dataroot_lq=pairs/LR",
    "datasets:train:io_backend:type=disk",
]


def break_image(folder: Path, how: str) -> None:
    hr, lr = folder / "HR" / "1.png", folder / "LR" / "1.png"
    image = read_bgr(hr)
    if how == "truncated":
        truncate(hr)
    elif how == "empty":
        lr.write_bytes(b"")
    elif how == "text":
        hr.write_text("not an image")
    elif how == "corrupt":
        data = bytearray(hr.read_bytes())
        data[len(data) // 2] ^= 255
        hr.write_bytes(data)
    elif how == "16 bits":
        write(hr, image.astype(np.uint16) * 257)
    elif how == "alpha":
        write(lr, np.dstack([read_bgr(lr), np.full((11, 13), 255, np.uint8)]))
    elif how == "mismatch":
        write(lr, read_bgr(lr)[1:])
    else:
        write(hr, image[:12, :12])
        write(lr, read_bgr(lr)[:3, :3])


BAD_IMAGES = {
    "truncated": "HR/1.png is truncated",
    "empty": "LR/1.png is not a readable image",
    "text": "HR/1.png is not a readable image",
    "corrupt": "HR/1.png is not a readable image",
    "16 bits": "HR/1.png has 16 bits a channel; convert it to 8",
    "alpha": "LR/1.png has an alpha channel; remove it",
    "mismatch": "HR/1.png is 52x44 and pairs/LR/1.png 13x10: not 4 times",
    "small": "HR/1.png is 12x12, smaller than gt_size 16",
}


@pytest.mark.parametrize("how", BAD_IMAGES)
@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_bad_image_is_named(folders: Path, capsys: pytest.CaptureFixture[str], how: str, num_workers: int) -> None:
    break_image(folders, how)
    with pytest.raises(SystemExit) as stop:
        train(*FROM_FOLDERS, f"datasets:train:num_worker_per_gpu={num_workers}")
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("basicsr: error: ") and f"pairs/{BAD_IMAGES[how]}" in last


def test_bad_images_are_skipped_where_asked_for(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    break_image(folders, "alpha")
    break_image(folders, "truncated")
    skip = [*FROM_FOLDERS, "datasets:train:skip_bad_images=true"]
    assert train(*skip, "train:total_iter=6") == 0
    output = capsys.readouterr().err
    assert output.count("skipped: pairs/HR/1.png is truncated") == 1  # once in the log, however often
    assert "4 images were skipped or converted, 1 different." in output  # every third of 12 draws
    for number in (0, 2):
        truncate(folders / "HR" / f"{number}.png")
    with pytest.raises(SystemExit):
        train(*skip)
    assert "noise: no image can be used" in capsys.readouterr().err.splitlines()[-1]


def test_grey_images_are_used_and_named(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folders / "LR" / "0.png", read_bgr(folders / "LR" / "0.png")[..., 0])
    assert train(*FROM_FOLDERS) == 0
    assert "pairs/LR/0.png is grey; it is used as three equal channels" in capsys.readouterr().err


@UNIX
def test_data_sets_may_share_an_lmdb(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sections = yaml.safe_load(Path("tiny.yml").read_text())
    val = sections["datasets"]["val"]
    shutil.copytree("data/val_LRx4.lmdb", "data/other_LRx4.lmdb")
    Path("link").symlink_to("data")
    sections["datasets"]["val_2"] = {**val, "name": "other", "dataroot_lq": "data/other_LRx4.lmdb"}
    sections["datasets"]["val_3"] = {**val, "name": "same", "dataroot_gt": "link/val_HR.lmdb"}
    sections["datasets"]["val_3"]["io_backend"] = {"type": "lmdb", "readahead": True}
    sections["datasets"]["val_4"] = {**sections["datasets"]["val"], "name": "trained", **TRAINED}
    Path("tiny.yml").write_text(yaml.safe_dump(sections))
    assert train() == 0
    err = capsys.readouterr().err
    assert all(f"Validation {name}" in err for name in ("held_out", "other", "same", "trained"))


TRAINED = {"dataroot_gt": "data/train_HR.lmdb", "dataroot_lq": "data/train_LRx4.lmdb"}


def test_images_reach_a_process_that_is_spawned(tiny_options: Section) -> None:
    images = checked_images(tiny_options["datasets"]["train"], "datasets.train")
    again = pickle.loads(pickle.dumps(StopBetweenImages(images, StopRequest())))
    assert len(again) == len(images) and again.paths == images.paths
