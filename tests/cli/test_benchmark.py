"""srflow benchmark: what it tells, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from srflow_plugin.cli.main import srflow_command
from srflow_plugin.flow import compiled
from srflow_plugin.leaderboard.draw import fingerprint
from tests.helpers import refusal, small_network


@pytest.mark.slow
def test_a_whole_benchmark(benchmark_command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert srflow_command(benchmark_command) == 0
    table = capsys.readouterr().out
    assert Path("out/table.md").read_text() in table
    rows = {
        line.split("|")[1].strip(): line for line in table.split("## again")[0].splitlines() if line.startswith("|")
    }
    assert list(rows)[2:] == [
        "bicubic",
        "net tau 0",
        "net tau 0.1",
        "theirs",
    ]  # Set5 has five images
    assert f"tau 0.1, 3 samples, seed 0, sha256 {fingerprint(Path('net.pth'))}" in rows["net tau 0.1"]
    summary = {(row["set"], row["method"]): row for row in json.loads(Path("out/summary.json").read_text())}
    theirs = summary["Set5", "theirs"]
    assert theirs["psnr"] == theirs["lr_psnr"] == float("inf") and theirs["distance"] == 0 and "diversity" not in theirs
    sampled, mean = summary["Set5", "net tau 0.1"], summary["again", "net tau 0.1"]
    assert sampled["psnr_best"] >= sampled["psnr"] and sampled["diversity"] > 0 and sampled["pixel_std"] > 0
    timeless = [{k: v for k, v in row.items() if k != "set" and "seconds" not in k} for row in (sampled, mean)]
    assert timeless[0] == timeless[1] and len(timeless[0]) > 15
    with Path("out/per_image.csv").open() as file:
        per_image = list(csv.DictReader(file))
    assert len(per_image) == 2 * 4 * 2
    of_row = [float(row["psnr"]) for row in per_image if (row["set"], row["method"]) == ("Set5", "net tau 0.1")]
    assert sampled["psnr"] == pytest.approx(np.mean(of_row))
    assert {path.name for path in Path("out/figures").iterdir()} >= {"Set5_curves.png", "Set5_000000.png"}
    protocol = json.loads(Path("out/protocol.json").read_text())
    assert protocol["tile"] == "auto" and protocol["resample"] is None and "device" not in protocol


def test_temperatures_are_0_and_the_default(
    benchmark_command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["benchmark", "-o", "out", "--set", "one", "HR", "LR", "--checkpoint", "net.pth", "--distance", "stlpips"]
    assert srflow_command([*command, "--num-samples", "1", "--device", "cpu"]) == 0
    methods = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert methods[2:] == ["net tau 0", "net tau 0.8"]


def test_the_learned_prior_is_a_row(benchmark_command: list[str]) -> None:
    torch.save({"params": small_network(prior_channels=4).state_dict()}, "net.pth")
    command = ["benchmark", "-o", "out", "--set", "one", "HR", "LR", "--checkpoint", "net.pth", "--distance", "stlpips"]
    temperatures = ["--temperature", "0", "0.1", "learned", "--num-samples", "2"]
    assert srflow_command([*command, *temperatures, "--device", "cpu", "--bicubic"]) == 0
    rows = {row["method"]: row for row in json.loads(Path("out/summary.json").read_text())}
    found = {name: (row["tau"], row["samples"]) for name, row in rows.items()}
    assert found == {
        "bicubic": (None, 1),
        "net tau 0": (0, 1),
        "net tau 0.1": (0.1, 2),
        "net tau learned": ("learned", 1),
    }
    assert "tau learned, 1 sample" in rows["net tau learned"]["protocol"]
    assert rows["net tau learned"]["psnr"] != rows["net tau 0"]["psnr"]


def test_no_compiler_is_told_before_anything_is_drawn(
    benchmark_command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def check() -> None:
        raise ValueError("there is no compiler")

    monkeypatch.setattr("srflow_plugin.archs.srflow_arch.check_compiler", check)
    command = ["benchmark", "-o", "out", "--set", "one", "HR", "LR", "--bicubic", "--checkpoint", "net.pth"]
    with pytest.raises(SystemExit) as stop:
        srflow_command([*command, "--distance", "stlpips", "--device", "cpu", "--compile"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines() == ["srflow: error: net.pth: there is no compiler"]
    assert not list(Path("out").rglob("*.png"))


def test_a_compiler_changes_nothing_but_the_time(benchmark_command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    compile_ = torch.compile  # to traces of programs here: machine code takes a minute
    monkeypatch.setattr(torch, "compile", lambda function: compile_(function, backend="aot_eager"))
    monkeypatch.setattr("srflow_plugin.archs.srflow_arch.check_compiler", lambda: None)
    compiled._program.cache_clear()
    command = ["benchmark", "-o", "out", "--set", "one", "HR", "LR", "--checkpoint", "net.pth", "--distance", "stlpips"]
    command += ["--num-samples", "1", "--device", "cpu"]
    assert srflow_command([*command, "--compile"]) == 0
    assert compiled._program.cache_info().currsize > 0
    images = {path: path.stat().st_mtime_ns for path in Path("out/images").rglob("*.png")}
    assert srflow_command(command) == 0  # the same benchmark: nothing is refused, nothing drawn again
    assert images and images == {path: path.stat().st_mtime_ns for path in Path("out/images").rglob("*.png")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--checkpoint", "none.pth"], "none.pth does not exist"),
        (["--images", "theirs", "LR"], "two methods are called 'theirs'"),
        (["--images", "small", "LR"], "LR/img0x4.png is 12x10, its ground truth 48x40"),
        (["--images", "empty", "data"], "data has no images"),
        (["--images", "../up", "LR"], "method '../up': a plain name is needed"),
        (["--images", "other", "others"], "others has no img0.png, img0_sample0.png or 000000_sample00000.png"),
        (["--set", "uneven", "images/train", "LR3"], "theirs has no 0.png, 0_sample0.png"),
        (["--set", "x8", "HR", "LR8"], "net.pth is a network of scale 4, x8 of scale 8"),
        (["--temperature", "0", "learned"], "net.pth has no learned prior, so that its temperature is a number"),
        (["--temperature", "-1"], "argument --temperature: -1 must be 0 or more"),
        (["--num-samples", "0"], "argument --num-samples: 0 must be 1 or more"),
        (["--tile", "0"], "argument --tile: 0 must be 1 or more"),
        (["--adaptive", "-1"], "argument --adaptive: -1 must be 0 or more"),
        (["--resample", "1"], "argument --resample: 1 must be from 0 to below 1"),
        (["--device", "tpu9"], "device 'tpu9' is not known"),
        (["--set", "no", "HR", "nowhere"], "nowhere is not a folder"),
        (["--network", "RRDB", "no.yml"], "no.yml does not exist"),
    ],
)
def test_mistakes_get_one_line(
    benchmark_command: list[str], capsys: pytest.CaptureFixture[str], change: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        srflow_command([*benchmark_command, *change])
    assert stop.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("srflow: ", "srflow bench"))]
    assert len(errors) == 1 and message in errors[0]


def test_nothing_to_compare(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        srflow_command(["benchmark", "-o", "out", "--set", "one", "images/train", "images/train"])
    assert stop.value.code == 2
    assert "nothing to compare: give --checkpoint, --network, --images or --bicubic" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_it_runs_without_a_gpu(
    benchmark_command: list[str], device: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    command = ["benchmark", "-o", "out", "--set", "one", "HR", "LR", "--bicubic", "--distance", "stlpips"]
    assert srflow_command([*command, "--device", device]) == 0
    assert "| bicubic |" in capsys.readouterr().out


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_gets_one_line(
    benchmark_command: list[str], device: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = refusal(capsys, *benchmark_command, "--device", device)
    assert f"device {device} cannot be used here: " in line and "use auto or cpu" in line
