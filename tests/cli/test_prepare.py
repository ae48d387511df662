"""srflow prepare: from whatever is named to pairs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from srflow_plugin import bicubic_downscale
from srflow_plugin.cli.main import srflow_command
from srflow_plugin.data.checked import decode_image, read_bgr
from srflow_plugin.data.known_sets import KNOWN_SETS, Archive, KnownSet
from tests.helpers import ARCHIVED, Server, make_archive, noise_png


def test_a_folder(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert srflow_command(["prepare", "images/train", "-o", "out/all", "--workers", "1"]) == 0
    assert "3 pairs" in capsys.readouterr().out
    assert sorted(path.name for path in Path("out").iterdir()) == ["all_HR.lmdb", "all_LRx4.lmdb"]
    with pytest.raises(SystemExit) as stop:
        srflow_command(["prepare", "nowhere", "-o", "out/none"])
    assert stop.value.code == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and "nowhere is no folder, archive" in errors[0]


def test_archives_to_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_archive(tmp_path / "set.tar.gz", ARCHIVED)
    command = ["prepare", "set.tar.gz/HR", "-o", "out", "--format", "png", "--crop-size", "8", "--downloads", "d"]
    for _ in range(2):
        assert srflow_command(command) == 0
        assert "12 pairs from 2 images" in capsys.readouterr().out
    assert sorted(path.name for path in Path("out").iterdir()) == ["HR", "LRx4", "prepared.json"]
    for kind in ("HR", "LRx4"):
        assert {path.name for path in Path("out", kind).iterdir()} == {
            f"{k}_s{n:03d}.png" for k in "ab" for n in range(1, 7)
        }
    image = decode_image(noise_png(0), "a")[:16, :20]
    assert np.array_equal(read_bgr(Path("out/HR/a_s006.png")), image[8:16, 12:20])
    assert np.array_equal(read_bgr(Path("out/LRx4/a_s006.png")), bicubic_downscale(image, 4)[2:4, 3:5])

    Path("out/LRx4/b_s001.png").unlink()  # made again
    assert srflow_command(command) == 0 and Path("out/LRx4/b_s001.png").exists()
    with pytest.raises(SystemExit) as stop:
        srflow_command([*command, "--crop-size", "4"])
    assert stop.value.code == 2 and "holds something else, or images made otherwise" in capsys.readouterr().err


def test_data_sets_by_name(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = make_archive(tmp_path / "small.zip", ARCHIVED).read_bytes()
    server.contents["/small.zip"], server.break_after = data, 2000
    archive = Archive(
        "small.zip", len(data), f"sha256:{hashlib.sha256(data).hexdigest()}", f"{server.url}/small.zip", ""
    )
    small = KnownSet(archive, "HR", 2, 2, 2, center_crop=8, border="replicate", kind="png")
    monkeypatch.setitem(KNOWN_SETS, "Small", [small])
    monkeypatch.setitem(KNOWN_SETS, "Both", [small, small._replace(first=1, last=1, border="symmetric")])
    for _ in range(2):
        assert srflow_command(["prepare", "Small", "-o", "datasets/Small"]) == 0
    assert server.starts[0] == 0 and len(server.starts) == -(-len(data) // 2000)  # fetched once, in parts
    assert sorted(str(path.relative_to("datasets/Small")) for path in Path("datasets/Small").rglob("*.png")) == [
        "HR/b.png",
        "LRx4/b.png",
    ]
    image = decode_image(noise_png(1), "b")[4:12, 7:15]
    assert np.array_equal(read_bgr(Path("datasets/Small/HR/b.png")), image)
    assert np.array_equal(read_bgr(Path("datasets/Small/LRx4/b.png")), bicubic_downscale(image, 4, "replicate"))

    def refusal(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stop:
            srflow_command(["prepare", *arguments])
        assert stop.value.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("srflow")]
        assert len(lines) == 1
        return lines[0]

    assert "not prepared alike; say --border" in refusal("Both", "-o", "both")
    assert srflow_command(["prepare", "Both", "-o", "both", "--border", "symmetric"]) == 0
    assert "get img_align_celeba.zip from https://mmlab" in refusal("CelebA", "-o", "faces")
    Path("datasets/downloads/img_align_celeba.zip").write_bytes(b"something else")
    assert "another md5 than expected" in refusal("CelebA", "-o", "faces")
    Path("datasets/downloads/small/HR/a.png").unlink()
    assert "has 1 images, 2 are expected" in refusal("Small", "-o", "more")
    assert "Smal is no folder, archive" in refusal("Smal", "-o", "more")
