"""All images of a benchmark read before any is drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srflow_plugin import bicubic_downscale
from srflow_plugin.cli.main import srflow_command
from srflow_plugin.images.files import read_image, write_image
from srflow_plugin.leaderboard import draw
from srflow_plugin.leaderboard.records import Records
from tests.helpers import noise_image, truncate


def refusal(capsys: pytest.CaptureFixture[str], command: list[str]) -> str:
    """Run a command that is refused; return the one line that says why."""
    with pytest.raises(SystemExit) as stop:
        srflow_command(command)
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("srflow"))
    assert stop.value.code == 2
    return line


def deep(path: Path) -> None:
    Image.fromarray(np.zeros((40, 48), np.uint16)).save(path)


def transparent(path: Path) -> None:
    Image.open(path).convert("RGBA").save(path)


def grey_and_transparent(path: Path) -> None:
    Image.open(path).convert("LA").save(path)


def no_image(path: Path) -> None:
    path.write_bytes(b"<html>not found</html>")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_size(path: Path) -> None:
    write_image(path, noise_image(40, 44))


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (truncate, "cannot be read"),
    (deep, "has 16 bits a channel; convert it to 8"),
    (transparent, "has an alpha channel; remove it"),
    (grey_and_transparent, "has an alpha channel; remove it"),
    (no_image, "is not an image that can be read"),
    (empty, "is not an image that can be read"),
]


@pytest.mark.parametrize("file", ["HR/img1.png", "LR/img1x4.png", "theirs/img1_their_name.png"])
@pytest.mark.parametrize(("damage", "message"), [*DAMAGES, (other_size, "")])
def test_a_bad_image_is_named_before_any_is_drawn(
    file: str,
    damage: Callable[[Path], None],
    message: str,
    benchmark_command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(draw, "_draw_image", lambda *arguments: pytest.fail("drawn"))
    damage(Path(file))
    line = refusal(capsys, benchmark_command)
    assert file in line and message in line
    assert not Path("out").exists()


def test_grey_images_are_scored(benchmark_command: list[str]) -> None:
    for file in ("HR/img1.png", "LR/img1x4.png"):
        Image.open(file).convert("L").save(file)
    command = ["benchmark", "-o", "out", "--set", "one", "HR", "LR", "--bicubic", "--distance", "stlpips"]
    assert srflow_command(command) == 0
    assert len(Records(Path("out/scores.jsonl")).values) == 2


def test_hr_images_are_cropped_and_it_is_said_once(
    benchmark_command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("odd").mkdir()
    for number in range(2):
        image = read_image(Path(f"HR/img{number}.png"))
        write_image(Path(f"odd/img{number}.png"), np.pad(image, ((0, 1), (0, 3), (0, 0)), "edge"))
    methods = ["--bicubic", "--images", "whole", "odd", "--images", "cropped", "HR", "--distance", "stlpips"]
    assert srflow_command(["benchmark", "-o", "out", "--set", "odd", "odd", "LR", *methods]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "cropped" in line]
    assert lines == ["odd: 2 of 2 HR images are cropped to a multiple of 4"]
    assert srflow_command(["benchmark", "-o", "even", "--set", "odd", "HR", "LR", *methods[:1], *methods[-2:]]) == 0
    assert "cropped" not in capsys.readouterr().err
    scores, even = (Records(Path(folder, "scores.jsonl")).values for folder in ("out", "even"))
    for name in ("img0.png", "img1.png"):
        assert scores["odd", "bicubic", name]["psnr"] == even["odd", "bicubic", name]["psnr"]
        assert scores["odd", "whole", name]["psnr"] == scores["odd", "cropped", name]["psnr"] == float("inf")


def test_a_data_set_has_one_scale(benchmark_command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    write_image(Path("LR/img1x4.png"), bicubic_downscale(read_image(Path("HR/img1.png")), 2))
    line = refusal(capsys, benchmark_command)
    assert "LR/img1x4.png is of scale 2, LR/img0x4.png of scale 4; one data set has one scale" in line


def test_what_is_scored_is_not_read_again(benchmark_command: list[str]) -> None:
    command = ["benchmark", "-o", "out", "--set", "one", "HR", "LR", "--distance", "stlpips"]
    command += ["--images", "theirs", "theirs"]
    assert srflow_command(command) == 0
    table = Path("out/table.md").read_text()
    assert srflow_command(command) == 0
    assert Path("out/table.md").read_text() == table


def test_a_network_that_cannot_be_used_is_named_before_any_draws(
    benchmark_command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(draw, "_draw_image", lambda *arguments: pytest.fail("drawn"))
    Path("bad.pth").write_bytes(b"no weights")
    for change, message in (
        (["--set", "x8", "HR", "LR8"], "net.pth is a network of scale 4, x8 of scale 8"),
        (["--checkpoint", "net.pth", "bad.pth"], "bad.pth is not a readable checkpoint"),
    ):
        assert message in refusal(capsys, [*benchmark_command, *change])
