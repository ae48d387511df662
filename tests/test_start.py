"""Commands that have nothing to compute answer at once, without torch; mistakes get one line."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.helpers import TINY, run_python

# Of the command itself half a second is asked; twice that is what a busy machine is given.
SECONDS = 1.0
TRIES = 3
RUN = """
import json, sys
from srflow_plugin.cli.main import {name}_command as run
try:
    code = run({arguments})
except SystemExit as stop:
    code = stop.code
print()
print(json.dumps(dict(code=code, modules=sorted(name for name in sys.modules if "." not in name))))
"""


class Answer(NamedTuple):
    """What a command says.

    Attributes:
        code: its exit code.
        output: on standard output.
        errors: lines on standard error.
        modules: top-level modules that it has imported.
        seconds: that it took, Python's start included.
    """

    code: int
    output: str
    errors: list[str]
    modules: set[str]
    seconds: float


def ask(line: str, folder: Path) -> Answer:
    name, *arguments = line.split()
    start = time.monotonic()
    done = run_python(RUN.format(name=name, arguments=arguments), cwd=folder)
    seconds = time.monotonic() - start
    output, _, told = done.stdout.rstrip("\n").rpartition("\n")
    answer = json.loads(told)
    return Answer(answer["code"], output, done.stderr.splitlines(), set(answer["modules"]), seconds)


def ask_again_if_slow(line: str, folder: Path) -> Answer:
    answers: list[Answer] = []
    while len(answers) < TRIES and (not answers or answers[-1].seconds >= SECONDS):
        answers.append(ask(line, folder))
    return min(answers, key=lambda answer: answer.seconds)


ANSWERS = {
    "srflow --help": "usage: srflow",
    "srflow --version": "srflow_plugin ",
    "srflow upscale --help": "--num-samples",
    "srflow benchmark --help": "--checkpoint",
    "basicsr --help": "usage: basicsr",
    "basicsr train --help": "-opt",
    "basicsr check --help": "--data",
}
MISTAKES = {
    "srflow": "the following arguments are required: COMMAND",
    "srflow upscal a.png": "there is no command 'upscal'; did you mean upscale?",
    "srflow train": "there is no command 'train'; did you mean basicsr train?",
    "basicsr upscale": "there is no command 'upscale'; did you mean srflow upscale?",
    "srflow upscale a.png -o o --temperatur 0.5": "--temperatur is not understood; did you mean --temperature?",
    "srflow upscale a.png": "the following arguments are required: -o/--output",
    "srflow upscale nowhere.png -o o": "nowhere.png does not exist",
    "srflow upscale nowhere/*.png -o o": "no file matches nowhere/*.png",
    "srflow upscale image.png -o o --scale 3": "scale 3: the package has networks for 4",
    "srflow upscale image.png -o o --checkpoint nowhere.pth": "nowhere.pth does not exist",
    "srflow encode nowhere.png -o x.safetensors": "nowhere.png does not exist",
    "srflow decode nowhere.safetensors -o x.png": "nowhere.safetensors does not exist",
    "srflow interpolate nowhere.png image.png -o way": "nowhere.png does not exist",
    "srflow transfer nowhere.png image.png -o x.png": "nowhere.png does not exist",
    "srflow restore nowhere.png -o x.png": "nowhere.png does not exist",
    "srflow redraw nowhere.png --mask image.png": "nowhere.png does not exist",
    "srflow std-map nowhere.png -o x.png": "nowhere.png does not exist",
    "srflow nll-map nowhere.png -o x.png": "nowhere.png does not exist",
    "srflow convert nowhere.pth x.pth": "nowhere.pth does not exist",
    "srflow demo --checkpoint nowhere.pth": "nowhere.pth does not exist",
    "basicsr train": "the following arguments are required: -opt",
    "basicsr train -opt nowhere.yml": "nowhere.yml: No such file or directory; give an option file with -opt",
    "basicsr test -opt nowhere.yml": "nowhere.yml: No such file or directory; give an option file with -opt",
    f"basicsr train -opt {TINY} --force_yml train:total_itre=4": "did you mean total_iter?",
    f"basicsr train -opt {TINY} --auto_resum": "--auto_resum is not understood; did you mean --auto_resume?",
}


@pytest.mark.parametrize("line", ANSWERS)
def test_help_is_there_at_once(line: str, tmp_path: Path) -> None:
    best = ask_again_if_slow(line, tmp_path)
    assert best.code == 0 and ANSWERS[line] in best.output and best.errors == []
    assert not {"torch", "numpy", "basicsr"} & best.modules
    assert best.seconds < SECONDS


@pytest.mark.parametrize("line", MISTAKES)
def test_mistakes_are_told_at_once_in_one_line(line: str, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"not looked at")
    best = ask_again_if_slow(line, tmp_path)
    assert best.code == 2 and len(best.errors) == 1 and best.output == "", best.errors
    assert best.errors[0].startswith(f"{line.split()[0]}") and ": error: " in best.errors[0]
    assert MISTAKES[line] in best.errors[0]
    assert not {"torch", "basicsr"} & best.modules
    assert best.seconds < SECONDS
    assert [path.name for path in tmp_path.iterdir()] == ["image.png"]


def test_importing_the_package_imports_next_to_nothing() -> None:
    code = "import sys\nbefore = {*sys.modules}\nimport srflow_plugin\nprint(*sorted({*sys.modules} - before))"
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    own = {name for name in done.stdout.split() if name.partition(".")[0] == "srflow_plugin"}
    assert own == {"srflow_plugin", "srflow_plugin._version", "srflow_plugin.compat"}
    assert not {"torch", "numpy", "PIL", "basicsr"} & {name.partition(".")[0] for name in done.stdout.split()}
