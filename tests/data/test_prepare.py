"""Pairs of images prepared: cut, downscaled, written so that a kill costs nothing."""

from __future__ import annotations

import os
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

from srflow_plugin import bicubic_downscale, locks
from srflow_plugin.data import prepare
from srflow_plugin.data.pairs import Pair, file_key, lmdb_key
from srflow_plugin.data.prepare import write_pairs
from srflow_plugin.errors import UserError
from srflow_plugin.images.files import find_images, read_image, write_image
from tests.helpers import ROOT, UNIX, noise_image, read_pairs, run_python


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_tiles_cover_the_image_and_know_their_surroundings(tmp_path: Path, workers: int) -> None:
    image = noise_image(41, 70)
    for name in ("a.png", "b.c.png"):
        cv2.imwrite(str(tmp_path / name), image)
    hr_lmdb, lr_lmdb = tmp_path / "HR.lmdb", tmp_path / "LR.lmdb"
    count = write_pairs(find_images(tmp_path), hr_lmdb, lr_lmdb, 4, crop_size=32, num_workers=workers)
    pairs = read_pairs(hr_lmdb, lr_lmdb)
    assert count == len(pairs) == 2 * 2 * 3
    assert {key.rpartition("_")[0] for key in pairs} == {"a", "b%2Ec"}
    assert sorted(path.name for path in tmp_path.glob("*.lmdb")) == ["HR.lmdb", "LR.lmdb"]

    rgb = image[:40, :68, ::-1]
    small = bicubic_downscale(np.ascontiguousarray(rgb), 4)
    corners = [(top, left) for top in (0, 8) for left in (0, 32, 36)]
    for number, (top, left) in enumerate(corners, start=1):
        hr, lr = pairs[f"a_s{number:03d}"]
        assert np.array_equal(hr, rgb[top : top + 32, left : left + 32])
        assert np.array_equal(lr, small[top // 4 : top // 4 + 8, left // 4 : left // 4 + 8])


def count_made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the images that are worked on, in this process, from here on."""
    made = []
    make = prepare.make_pairs

    def counted(path: Path, **settings: Any) -> list[Pair]:
        made.append(path.name)
        return make(path, **settings)

    monkeypatch.setattr(prepare, "make_pairs", counted)
    return made


def test_a_failed_preparation_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ac":
        cv2.imwrite(str(tmp_path / f"{name}.png"), noise_image(16, 16))
    (tmp_path / "b.png").write_bytes(b"not an image")
    arguments = tmp_path / "HR.lmdb", tmp_path / "LR.lmdb", 4, 8
    with pytest.raises(UserError, match=r"b\.png is not a readable image"):
        write_pairs(find_images(tmp_path), *arguments)
    assert not (tmp_path / "HR.lmdb").exists() and (tmp_path / "HR.unfinished.lmdb").exists()

    made = count_made(monkeypatch)
    cv2.imwrite(str(tmp_path / "a.png"), noise_image(20, 16))  # changed meanwhile
    (tmp_path / "b.png").unlink()
    assert write_pairs(find_images(tmp_path), *arguments) == 6 + 4
    assert made == ["a.png", "c.png"]
    pairs = read_pairs(*arguments[:2])
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
    with pytest.raises(UserError, match=r"a\.png and .*a\.png would both be stored as 'a'; rename one"):
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


def contents(folder: Path) -> dict[Any, Any]:
    with lmdb.open(str(folder), readonly=True, lock=False) as database, database.begin() as transaction:
        return {**dict(transaction.cursor()), "meta_info": (folder / "meta_info.txt").read_text()}


@pytest.mark.slow
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

    made = count_made(monkeypatch)
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
    hr, lr = read_pairs(tmp_path / "HR.lmdb", tmp_path / "LR.lmdb", 8)["a"]
    assert np.array_equal(hr, image[7:23, 12:28, ::-1])
    assert np.array_equal(lr, bicubic_downscale(hr, 8))


def test_images_smaller_than_a_tile_are_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, size in (("large", 64), ("flat", 40), ("small", 24)):
        write_image(tmp_path / f"{name}.png", noise_image(size, 64 if name == "flat" else size))
    images = sorted(tmp_path.glob("*.png"))
    assert write_pairs(images, tmp_path / "HR", tmp_path / "LR", 4, crop_size=48) == 4
    assert {read_image(file).shape for file in (tmp_path / "HR").iterdir()} == {(48, 48, 3)}
    log = capsys.readouterr().err
    assert "flat.png is smaller than 48x48 and left out" in log and "small.png is smaller" in log
    with pytest.raises(UserError, match="no image is as large as 96x96"):
        write_pairs(images, tmp_path / "HR2", tmp_path / "LR2", 4, crop_size=96)


HOLDER = """
import sys, time
from pathlib import Path
from srflow_plugin.locks import held
with held(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(1000)
"""


@pytest.mark.parametrize("half", ["HR", "LR"])
def test_two_preparations_of_one_output_are_kept_apart(
    half: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.3)
    cv2.imwrite(str(tmp_path / "a.png"), noise_image(16, 16))
    command = [sys.executable, "-c", HOLDER, str(tmp_path / f".{half}.lmdb.lock")]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    arguments = find_images(tmp_path), tmp_path / "HR.lmdb", tmp_path / "LR.lmdb", 4
    with pytest.raises(
        UserError, match=rf"{half}\.lmdb is in use: process {other.pid} on .*; wait for it, or choose another"
    ):
        write_pairs(*arguments)
    assert not list(tmp_path.glob("*.lmdb"))
    other.kill()
    other.communicate()
    assert write_pairs(*arguments) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "HR.lmdb", "LR.lmdb"}


NAMES = [
    "\u00fc",
    "\u65e5\u672c \u8a9e",
    "a.b",
    "a b",
    "a_b",
    "100%",
    "c,d\n(1,2,3) 1",
    "tab\t",
    "\u4e16" * 80,
    "\U0001f600",
]


def test_images_of_any_name_are_kept(tmp_path: Path) -> None:
    names = [*NAMES, os.fsdecode(b"\xff")] if sys.platform == "linux" else NAMES
    (tmp_path / "in").mkdir()
    for number, name in enumerate(names):
        png = cv2.imencode(".png", noise_image(16, 16, number))[1]
        (tmp_path / "in" / f"{name}.png").write_bytes(png.tobytes())
    images = find_images(tmp_path / "in")
    assert write_pairs(images, tmp_path / "HR.lmdb", tmp_path / "LR.lmdb", 4) == len(names)
    pairs = read_pairs(tmp_path / "HR.lmdb", tmp_path / "LR.lmdb")
    for number, name in enumerate(names):
        assert np.array_equal(pairs[lmdb_key(name)][0], noise_image(16, 16, number)[..., ::-1])
    assert write_pairs(images, tmp_path / "HR", tmp_path / "LR", 4, 8) == 4 * len(names)
    written = {path.name for path in (tmp_path / "HR").iterdir()}
    assert {f"{file_key(name)}_s004.png" for name in names} < written
    assert written == {path.name for path in (tmp_path / "LR").iterdir()} and len(written) == 4 * len(names)


LIMITED = """
import resource, sys
from pathlib import Path
from srflow_plugin.cli.main import srflow_command
resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34))
sys.exit(srflow_command(["prepare", "in", "-o", "out", "--workers", "1"]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_little_address_space_is_enough(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), noise_image(16, 16))
    done = run_python(LIMITED, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0 and "1 pair from 1 image" in done.stdout, done.stderr
    assert (tmp_path / "out_HR.lmdb" / "data.mdb").stat().st_size < 2**20


@UNIX
def test_an_image_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"a\.png does not exist; correct the path"):
        write_pairs([tmp_path / "a.png"], tmp_path / "hr.lmdb", tmp_path / "lr.lmdb", 4)
    assert list(tmp_path.glob("*.lmdb")) == []


def test_larger_images_are_read_where_asked_for(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", noise_image(40, 40))
    with pytest.raises(UserError, match=r"40 x 40 pixels, more than 1,599; .* --max-pixels lets"):
        write_pairs([tmp_path / "a.png"], tmp_path / "HR", tmp_path / "LR", 4, num_workers=1, max_pixels=1599)
    assert write_pairs([tmp_path / "a.png"], tmp_path / "HR", tmp_path / "LR", 4, num_workers=1, max_pixels=1600) == 1
