"""Folder of the page's pictures."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from srflow_plugin.demo import pictures
from srflow_plugin.demo.pictures import check_room, new_folder, pictures_folder, sweep, without_folder
from srflow_plugin.errors import UserError
from tests.helpers import UNIX, noise_image

MAKE = "from srflow_plugin.demo.pictures import *\nwith pictures_folder() as folder: print(folder, flush=True); input()"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def start(temporary: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that has a folder for pictures."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAKE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


@UNIX
def test_folders_of_processes_that_were_killed_go_and_no_others(temporary: Path) -> None:
    living, kept = start(temporary)
    killed, left = start(temporary)
    (left / "abc").mkdir()
    (left / "abc" / "sample.png").write_bytes(b"x")
    killed.kill()
    killed.wait()
    victim = temporary / "victim"
    victim.mkdir()
    (victim / "lock").touch()
    (temporary / "srflow_demo_link").symlink_to(victim)
    (temporary / "srflow_demo_other").mkdir()  # without a lock: nobody knows whose it is
    (temporary / "srflow_demo_file").touch()
    with pictures_folder() as own:
        assert kept.is_dir() and not left.parent.exists() and own.parent.stat().st_mode & 0o777 == 0o700
    names = {path.name for path in temporary.iterdir()}
    others = {"victim", "srflow_demo_link", "srflow_demo_other", "srflow_demo_file"}
    assert names == {kept.parent.name, *others} and (victim / "lock").exists()
    living.communicate("\n")
    assert not kept.parent.exists()


def test_names_of_folders_cannot_be_guessed(tmp_path: Path) -> None:
    names = [new_folder(tmp_path).name for _ in range(20)]
    assert len(set(names)) == 20 and all(len(name) == 32 for name in names)


def test_pictures_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (new_folder(tmp_path) / "x").write_bytes(b"x" * 100)
    monkeypatch.setattr(pictures, "LARGEST", 99 + pictures.size_of(tmp_path) - 100)
    for full in (check_room, new_folder):
        with pytest.raises(UserError, match="as many pictures as it may"):
            full(tmp_path)
    monkeypatch.undo()
    check_room(tmp_path)
    monkeypatch.setattr(pictures, "LEFT_FREE", 2**62)  # of a disk
    with pytest.raises(UserError, match="as many pictures as it may"):
        check_room(tmp_path)


def test_pictures_are_counted_while_others_are_deleted(tmp_path: Path) -> None:
    is_over = threading.Event()

    def change() -> None:
        while not is_over.is_set():
            folder = new_folder(tmp_path)
            for name in "abcdef":
                (folder / name).mkdir()
            shutil.rmtree(folder)

    changing = [threading.Thread(target=change) for _ in range(4)]
    for thread in changing:
        thread.start()
    try:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            assert pictures.size_of(tmp_path) >= 0
    finally:
        is_over.set()
        for thread in changing:
            thread.join()


def test_old_pictures_are_deleted(tmp_path: Path) -> None:
    names = ["example", "old", "new"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").touch()
    (tmp_path / "old.part").touch()
    for name in ("example", "old", "old.part"):
        os.utime(tmp_path / name, (0, time.time() - 3700))
    sweep(tmp_path, {tmp_path / "example"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["example", "new"]


def test_lines_do_not_tell_where_files_lie(tmp_path: Path) -> None:
    line = f"{tmp_path}/abc/cat.png does not exist, nor '{tmp_path}/d/e/f.png'; see /etc"
    assert without_folder(line, tmp_path) == "cat.png does not exist, nor 'f.png'; see /etc"


def test_pillow_starts_no_other_program(tmp_path: Path) -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n"
    (tmp_path / "photo.png").write_bytes(eps)
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "gs").chmod(0o755)
    Image.fromarray(noise_image(3, 3)).save(tmp_path / "good.png")
    code = f"""
from pathlib import Path
from PIL import Image
from srflow_plugin.demo.pictures import only_pixels
only_pixels()
Image.MAX_IMAGE_PIXELS = 8
for formats in (None, ["EPS"]):
    try:
        Image.open("{tmp_path}/photo.png", formats=formats).load()
    except Exception as error:
        print(type(error).__name__)
try:
    Image.open("{tmp_path}/good.png").load()
    Image.open("{tmp_path}/good.png").resize((9, 9)).save("{tmp_path}/good.png")
    Image.open("{tmp_path}/good.png")
except Image.DecompressionBombError:
    print("bomb")
"""
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["UnidentifiedImageError", "KeyError", "bomb"], ended.stdout
    assert not (tmp_path / "ran").exists()
