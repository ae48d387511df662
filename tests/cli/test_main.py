"""The commands' common part: help, mistyped words, exit codes."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version

import pytest
import torch

from srflow_plugin import __version__
from srflow_plugin.cli import main, prepare
from srflow_plugin.cli.main import TOOLS, TRAINING, all_commands, basicsr_command, srflow_command
from srflow_plugin.errors import TrainingError, UserError
from tests.helpers import ROOT, UNIX, run_python

Command = Callable[[Sequence[str]], int]
COMMANDS = {"basicsr": basicsr_command, "srflow": srflow_command, "python -m srflow_plugin": all_commands}


SHORTAGE = (
    "there is not enough memory for this; smaller images, tiles (--tile) or batches, or fewer --num-samples, need less"
)


def stopped(command: Command, *arguments: str) -> int:
    """Run a command that ends by itself; return its exit code."""
    with pytest.raises(SystemExit) as stop:
        command(arguments)
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_misspelt_commands(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = COMMANDS[name]
    assert stopped(command, "--help") == 0 and "commands" in capsys.readouterr().out
    assert stopped(command, "--version") == 0
    versions = f"srflow_plugin {__version__}, Python {platform.python_version()}, PyTorch {version('torch')}, BasicSR "
    assert capsys.readouterr().out.startswith(versions)
    assert stopped(command, "trian") == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and errors[0].startswith(f"{name}: error: there is no command 'trian'; ")


@pytest.mark.parametrize("name", [*TRAINING, *TOOLS])
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert stopped(all_commands, name, "--help") == 0
    output = " ".join(capsys.readouterr().out.split())
    assert f"usage: python -m srflow_plugin {name} " in output and {**TRAINING, **TOOLS}[name].HELP in output


@pytest.mark.parametrize(
    ("command", "arguments", "hint"),
    [
        (basicsr_command, ["trian"], "did you mean train?"),
        (basicsr_command, ["upscale"], "did you mean srflow upscale?"),
        (srflow_command, ["test"], "did you mean basicsr test?"),
        (srflow_command, ["zzz"], "known are benchmark, convert,"),
        (basicsr_command, ["train", "-opt", "a.yml", "--auto-resume"], "did you mean --auto_resume?"),
        (basicsr_command, ["train", "-opt", "a.yml", "more"], "more is not understood"),
        (basicsr_command, ["train"], "the following arguments are required: -opt (see basicsr train --help)"),
        (basicsr_command, ["train", "-opt", "a.yml", "--launcher", "mpi"], "invalid choice: 'mpi'"),
        (basicsr_command, [], "the following arguments are required: COMMAND"),
    ],
)  # fmt: skip
def test_what_is_mistyped_gets_one_line(
    command: Command, arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stopped(command, *arguments) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and hint in errors[0] and ": error: " in errors[0]


@pytest.mark.parametrize(
    ("end", "code", "line"),
    [
        (UserError("a mistake"), 2, "srflow: error: a mistake"),
        (TrainingError("a fault"), 1, "srflow: stopped: a fault"),
        (KeyboardInterrupt(), 130, "srflow: interrupted"),
        (
            OSError(28, "No space left on device", "a"),
            1,
            "srflow: stopped: a: No space left on device; what is done stays",
        ),
        (OSError(5, "Input/output error"), 1, "srflow: stopped: Input/output error; what is done stays"),
        (MemoryError(), 1, f"srflow: stopped: {SHORTAGE}"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 1, f"srflow: stopped: {SHORTAGE}"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 1, f"srflow: stopped: {SHORTAGE}"),
    ],
)
def test_exit_codes(
    end: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: argparse.Namespace) -> None:
        raise end

    monkeypatch.setattr(prepare, "run", run)
    assert stopped(srflow_command, "prepare", "folder", "-o", "out") == code
    assert capsys.readouterr().err == f"{line}\n"


@pytest.mark.parametrize("fault", [RuntimeError("shapes cannot be multiplied"), FileNotFoundError(2, "No such file")])
def test_other_faults_are_not_hidden(fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(args: argparse.Namespace) -> None:
        raise fault

    monkeypatch.setattr(prepare, "run", run)
    with pytest.raises(type(fault)):
        srflow_command(["prepare", "folder", "-o", "out"])


def test_what_a_command_returns_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    for returned, code in ((None, 0), (0, 0), (1, 1)):
        monkeypatch.setattr(prepare, "run", lambda args, returned=returned: returned)
        assert srflow_command(["prepare", "folder", "-o", "out"]) == code


WAITING = """
import os, runpy, sys
from srflow_plugin.cli import check, prepare
prepare.run = lambda args: print(os.environ.get("OMP_WAIT_POLICY"), "torch" in sys.modules)
check.run = lambda args: prepare.run(args)
sys.argv[1:] = {}
runpy.run_module("srflow_plugin", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("chosen", "policy"),
    [
        ({}, "PASSIVE"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"),
        ({"GOMP_SPINCOUNT": "1000"}, "None"),
        ({"KMP_BLOCKTIME": "200"}, "None"),
    ],
)
def test_threads_that_wait_sleep_unless_the_user_has_chosen(chosen: dict[str, str], policy: str) -> None:
    unset = {name: value for name, value in os.environ.items() if name not in main.WAITING}
    done = run_python(
        WAITING.format(["prepare", "folder", "-o", "out"]), env={**unset, "PYTHONPATH": str(ROOT), **chosen}
    )
    assert done.stdout == f"{policy} False\n", done.stderr  # before torch is imported


def test_a_training_chooses_nothing() -> None:
    unset = {name: value for name, value in os.environ.items() if name not in main.WAITING}
    done = run_python(WAITING.format(["check", "file.yml"]), env={**unset, "PYTHONPATH": str(ROOT)})
    assert done.stdout.split()[0] == "None", done.stderr


@UNIX
@pytest.mark.parametrize("name", ["a\nsrflow: done", "a\x1b[2J", "a\u202egnp", "a\r\x9b", "a" * 5000], ids=range(5))
def test_no_name_can_write_a_line_or_move_the_cursor(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command, arguments in [
        (srflow_command, ["upscale", f"{name}.png", "-o", "out"]),
        (srflow_command, ["convert", name, "out.pth"]),
        (srflow_command, ["prepare", name, "-o", "out"]),
        (srflow_command, ["upscale", "a.png", "-o", "out", f"--{name}"]),
        (srflow_command, [name]),
        (basicsr_command, ["train", "-opt", name]),
        (basicsr_command, ["train", "-opt", "a.yml", "--launcher", name]),
    ]:
        assert stopped(command, *arguments) == 2
        told = capsys.readouterr()
        assert told.out == "" and told.err.endswith("\n") and told.err[:-1].isprintable() and len(told.err) < 4100
