"""A whole benchmark: it goes on, does nothing twice, and mixes nothing up."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from srflow_plugin.cli.main import srflow_command
from srflow_plugin.errors import UserError
from srflow_plugin.leaderboard import draw
from srflow_plugin.leaderboard.run import check_names, choose_methods
from srflow_plugin.sampling.draw import draw as draw_samples


@pytest.mark.slow
def test_it_goes_on_and_does_nothing_twice(
    benchmark_command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert srflow_command(benchmark_command) == 0
    table = Path("out/table.md").read_text()
    drawn = Path("out/drawn.jsonl").read_text().splitlines(keepends=True)
    calls = []

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(1)
        return draw_samples(*args, **options)

    monkeypatch.setattr(draw, "draw", counted)
    assert srflow_command(benchmark_command) == 0
    assert not calls and Path("out/table.md").read_text() == table

    # as a kill leaves it: a record half written, a picture missing
    Path("out/drawn.jsonl").write_text("".join(drawn[:-1]) + drawn[-1][:9])
    Path("out/images/Set5/net_tau_0/000000_sample00000.png").unlink()
    assert srflow_command(benchmark_command) == 0
    assert len(calls) == 2

    def without_seconds(text: str) -> list[list[str]]:
        return [line.split("|")[:-3] for line in text.splitlines()]

    assert without_seconds(Path("out/table.md").read_text()) == without_seconds(table)

    with pytest.raises(SystemExit) as stop:
        srflow_command([*benchmark_command, "--seed", "1"])
    assert stop.value.code == 2 and "out holds a benchmark with another seed" in capsys.readouterr().err
    shutil.copy("HR/img0.png", "HR/img2.png")
    with pytest.raises(SystemExit):
        srflow_command(benchmark_command)
    assert "Set5: HR has 3 images and LR 2" in capsys.readouterr().err


def test_methods_and_sets_may_be_added_and_not_changed(
    benchmark_command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["benchmark", "-o", "out", "--set", "Set5", "HR", "LR", "--distance", "stlpips"]
    assert srflow_command([*command, "--images", "theirs", "theirs"]) == 0
    assert srflow_command([*command, "--images", "theirs", "theirs", "--bicubic", "--set", "more", "HR", "LR"]) == 0
    for change, what in (
        (["--images", "theirs", "HR"], "method theirs"),
        (["--bicubic", "--lr-border", "replicate"], "lr_border"),
        (["--bicubic", "--set", "more", "HR", "LR8"], "set more"),
    ):
        with pytest.raises(SystemExit) as stop:
            srflow_command([*command, *change])
        assert stop.value.code == 2
        assert f"out holds a benchmark with another {what}; choose another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("methods", "sets", "message"),
    [
        (["a", "b", "a"], ["s"], "two methods are called 'a'; give each a name of its own"),
        (["a"], ["s", "s"], "two data sets are called 's'"),
        (["a/b"], ["s"], "method 'a/b': a plain name is needed, without /"),
        (["a"], [".."], r"data set '\.\.': a plain name is needed"),
    ],
)
def test_names_become_folders(methods: list[str], sets: list[str], message: str) -> None:
    check_names(["a", "b c"], ["s.1"])
    with pytest.raises(UserError, match=message):
        check_names(methods, sets)


def test_methods_are_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("net.pth", "swin.yml"):
        Path(name).touch()
    chosen: dict[str, Any] = {"checkpoints": ["net.pth"], "temperatures": [0.5], "num_samples": 2, "bicubic": True}
    methods = choose_methods(**chosen, networks=[("SwinIR", "swin.yml")], folders=[("theirs", "folder")])
    assert [(method.name, method.draws) for method in methods] == [
        ("bicubic", True),
        ("net tau 0.5", True),
        ("SwinIR", True),
        ("theirs", False),
    ]
    with pytest.raises(UserError, match=r"none\.yml does not exist; correct the path"):
        choose_methods(**chosen, networks=[("SwinIR", "none.yml")], folders=[])
    shipped = choose_methods(**{**chosen, "checkpoints": ["srflow_x4"]}, networks=[], folders=[])
    assert shipped[1].name == "srflow_x4 tau 0.5"
