"""``--print-completion``: the script, in the shell that it is for."""

from __future__ import annotations

import builtins
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from srflow_plugin.cli.main import TOOLS, TRAINING, all_commands, basicsr_command, srflow_command

pytest.importorskip("shtab", reason="shtab makes the scripts")
# Fills COMPREPLY as bash does when a tab is typed at the end of the words.
TYPE_A_TAB = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
_shtab_$1 "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def script_of(command: Any, shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        command(["--print-completion", shell])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["srflow", "up"], {"upscale"}),
        (["srflow", ""], {*TOOLS}),
        (["srflow", "upscale", "--temp"], {"--temperature"}),
        (["srflow", "upscale", "pho"], {"photo.png"}),
        (["srflow", "upscale", "photo.png", "--checkpoint", "n"], {"net.safetensors"}),
        (["srflow", "nll-map", "pho"], {"photo.png"}),
        (["srflow", "std-map", "photo.png", "--dev"], {"--device"}),
        (["basicsr", ""], {*TRAINING}),
        (["basicsr", "train", "-opt", "tr"], {"train.yml"}),
    ],
)
def test_bash_completes(words: list[str], found: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = srflow_command if words[0] == "srflow" else basicsr_command
    (tmp_path / "script").write_text(script_of(command, "bash", capsys), encoding="utf-8")
    for name in ("photo.png", "net.safetensors", "train.yml"):
        (tmp_path / name).touch()
    arguments = ["bash", "-c", TYPE_A_TAB, "bash", "./script", *words]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=True)
    answers = {line for line in done.stdout.splitlines() if line}
    assert done.stderr == "" and found <= answers
    assert all(answer.startswith(words[-1]) for answer in answers)


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh"])
def test_other_shells_know_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = script_of(srflow_command, shell, capsys)
    assert [name for name in TOOLS if name not in script] == []
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    ("command", "arguments", "hint"),
    [
        (srflow_command, ["--print-completion", "basj"], "choose from "),
        (srflow_command, ["--print-completoin", "bash"], "did you mean --print-completion?"),
        (
            all_commands,
            ["--print-completion", "bash"],
            "--print-completion is not understood",
        ),  # no shell can complete python -m
    ],
)
def test_what_is_refused(command: Any, arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and hint in line


def test_without_shtab_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments: Any, **settings: Any) -> Any:
        if name == "shtab":
            raise ImportError(name=name)
        return real(name, *arguments, **settings)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(SystemExit) as stop:
        srflow_command(["--print-completion", "bash"])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and "needs shtab, which is not installed: pip install" in line
