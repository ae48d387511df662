"""A whole benchmark: it goes on, does nothing twice, and mixes nothing up."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from srflow_plugin.cli.main import srflow_command
from srflow_plugin.errors import UserError
from srflow_plugin.leaderboard import draw
from srflow_plugin.leaderboard.run import check_names, choose_methods
from srflow_plugin.sampling.draw import draw as draw_samples
from tests.helpers import ROOT, UNIX


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
    assert (
        stop.value.code == 2
        and "out holds a benchmark with another seed (0, now 1); name another" in capsys.readouterr().err
    )
    shutil.copy("HR/img0.png", "HR/img2.png")
    with pytest.raises(SystemExit):
        srflow_command(benchmark_command)
    assert "Set5: HR has 3 images and LR 2" in capsys.readouterr().err


# A process of two; the second is killed with its second image in hand, at a place that an argument names.
PROCESS = """
import os, signal, sys, time
from pathlib import Path
from srflow_plugin.cli.main import srflow_command
from srflow_plugin.leaderboard import draw, score
module, name = {"draw": (draw, "_draw_image"), "score": (score, "_score")}[sys.argv[1]]
rank, calls, work = os.environ["RANK"], [], getattr(module, name)

def doomed(*arguments, **options):
    calls.append(1)
    if len(calls) == 2:
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return work(*arguments, **options)

def patient(*arguments, **options):
    while not Path("killed").exists():
        time.sleep(0.05)
    return work(*arguments, **options)

setattr(module, name, doomed if rank == "1" else patient)
sys.exit(srflow_command(sys.argv[2:]))
"""


@UNIX
@pytest.mark.slow
@pytest.mark.parametrize("place", ["draw", "score"])
def test_two_processes_make_the_benchmark_of_one_though_one_is_killed(
    place: str, benchmark_command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("process.py").write_text(PROCESS)
    processes = []
    for rank in "01":
        ranks = {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank}
        command = [sys.executable, "process.py", place, *benchmark_command]
        processes.append(subprocess.Popen(command, env={**os.environ, **ranks}, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, -signal.SIGKILL] and outputs[1] == ""
    for name, count in (("drawn.jsonl", 3 * 4), ("scores.jsonl", 4 * 4)):
        keys = [tuple(json.loads(line)[:3]) for line in Path("out", name).read_text().splitlines()]
        assert len(keys) == len(set(keys)) == count
    assert not list(Path("out").glob(".*"))
    if place == "score":
        return
    Path("out").rename("shared")
    assert srflow_command(benchmark_command) == 0
    tables = [
        [line.split("|")[:-3] for line in text.splitlines()] for text in (outputs[0], Path("out/table.md").read_text())
    ]
    assert tables[0][: len(tables[1])] == tables[1]
    for path in Path("out/images").rglob("*.png"):
        assert path.read_bytes() == Path("shared", path.relative_to("out")).read_bytes()


def test_methods_and_sets_may_be_added_and_not_changed(
    benchmark_command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["benchmark", "-o", "out", "--set", "Set5", "HR", "LR", "--distance", "stlpips"]
    assert srflow_command([*command, "--images", "theirs", "theirs"]) == 0
    assert srflow_command([*command, "--images", "theirs", "theirs", "--bicubic", "--set", "more", "HR", "LR"]) == 0
    for change, what in (
        (["--images", "theirs", "HR"], "method theirs (weights "),
        (["--bicubic", "--lr-border", "replicate"], "lr_border (symmetric, now replicate); name another folder"),
        (["--bicubic", "--set", "more", "HR", "LR8"], "set more; name another folder"),
        (["--bicubic", "--adaptive", "0.5"], "adaptive (None, now 0.5); name another folder"),
        (["--bicubic", "--adaptive", "0.7"], "adaptive (None, now 0.7); name another folder"),
    ):
        if what.endswith("now 0.7); name another folder"):  # as versions without that setting have left it
            kept = json.loads(Path("out/protocol.json").read_text())
            del kept["adaptive"]
            Path("out/protocol.json").write_text(json.dumps(kept))
        with pytest.raises(SystemExit) as stop:
            srflow_command([*command, *change])
        assert stop.value.code == 2
        assert f"out holds a benchmark with another {what}" in capsys.readouterr().err


@UNIX
def test_a_benchmark_that_others_make_now_is_not_made_otherwise(
    benchmark_command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The first has drawn nothing yet."""
    command = ["benchmark", "-o", "out", "--set", "Set5", "HR", "LR", "--distance", "stlpips", "--bicubic"]
    code = PROCESS.replace("kill(os.getpid(), signal.SIGKILL)", "pause()").replace("== 2", "== 1")
    code = code.replace("os.pause()", "signal.pause()")
    Path("process.py").write_text(code)
    ranks = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "PYTHONPATH": str(ROOT)}
    other = subprocess.Popen([sys.executable, "process.py", "draw", *command], env={**os.environ, **ranks})
    while not Path("killed").exists():
        time.sleep(0.05)
    with pytest.raises(SystemExit) as stop:
        srflow_command([*command, "--seed", "7"])
    assert stop.value.code == 2
    told = f"another seed (0, now 7), which process {other.pid} on {socket.gethostname()}"
    assert told in " ".join(capsys.readouterr().err.split())
    other.kill()
    other.wait()
    assert srflow_command([*command, "--seed", "7"]) == 0
    assert {path.name for path in Path("out").glob(".*")} <= {".srflow.lock"}


@pytest.mark.parametrize("damage", ["[1", "[]", "\0\0\0", '{"seed":'])
def test_a_damaged_protocol_is_named(
    damage: str, benchmark_command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("out").mkdir()
    Path("out/protocol.json").write_text(damage)
    with pytest.raises(SystemExit) as stop:
        srflow_command(["benchmark", "-o", "out", "--set", "Set5", "HR", "LR", "--distance", "stlpips", "--bicubic"])
    assert stop.value.code == 2 and "out/protocol.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("methods", "sets", "message"),
    [
        (["a", "b", "a"], ["s"], "two methods are called 'a'; give each a name of its own"),
        (["a"], ["s", "s"], "two data sets are called 's'"),
        (["a/b"], ["s"], "method 'a/b': a plain name is needed, without /"),
        (["a"], [".."], r"data set '\.\.': a plain name is needed"),
        (["a b", "a_b"], ["s"], "two methods are 'a b' and 'a_b', which share a folder"),
        (["SwinIR", "swinir"], ["s"], "two methods are 'SwinIR' and 'swinir', which share a folder"),
        (["a"], ["Set5", "set5"], "two data sets are 'Set5' and 'set5', which share a folder"),
        (["a\nb"], ["s"], r"method 'a\\nb': a plain name is needed"),
        (["a"], ["s\x1b[31m"], r"data set 's\\x1b\[31m': a plain name is needed"),
        (["a\u202eb"], ["s"], r"method 'a\\u202eb': a plain name is needed"),
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
