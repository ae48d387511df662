"""Every block of code in the documentation: run as a reader would, or read by the program that it is for.

A page's ``python`` blocks run from top to bottom in one namespace, its ``sh`` blocks line by line, all in a folder that
has photo.png (64x64), face.png (20x20), mask.png (256x256) and folders of images; ``image`` is the photograph as an
array, ``gt`` and ``lq`` are it and its LR image as tensors. ``yaml`` blocks are checked against the schema.

A block that cannot be run here has the line ``<!-- not run: REASON -->`` before it, and its commands still have to be
right: options, option files with their ``--force_yml``, scripts, modules, extras.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import chelsea
from torch.distributed.run import get_args_parser

from srflow_plugin import bicubic_downscale
from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.cli.main import PROGRAMS, basicsr_command, make_parser, srflow_command
from srflow_plugin.options import document, schema
from srflow_plugin.options.files import parse
from srflow_plugin.training.setup import check_options
from tests.helpers import ROOT, UNIX

pytestmark = UNIX
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), ROOT / "datasets" / "README.md"]
FENCE = re.compile(r"^( *)(`{3,}|~{3,})(.*?)\n(.*?)^\1\2\s*$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: ([^<>]+) -->\s*\Z")
OPERATORS = re.compile(r"[|<>;`]|\$\(|&&|\b(for|while|if) ")
LONG = [("basicsr", "train"), ("basicsr", "test"), ("srflow", "demo")]
# Programs that are told what to do with other machines, packages or the project itself.
NOT_HERE = (
    "git",
    "pip",
    "pytest",
    "ruff",
    "mypy",
    "sphinx-build",
    "tensorboard",
    "sbatch",
    "scontrol",
    "uv",
    ".ci/run",
)
SECTIONS: dict[str, Callable[..., Any]] = {"network_g": SRFlowNet, **schema.SECTIONS["SRFlowModel"]}


class Block(NamedTuple):
    """A block of code: the words behind its fence, its text, its line, and why it is not run, or ""."""

    language: str
    text: str
    line: int
    reason: str


def blocks_of(page: str) -> Iterator[Block]:
    for match in FENCE.finditer(page):
        indent, _, language, text = match.groups()
        reason = NOT_RUN.search(page[: match.start()])
        text = re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)
        yield Block(language.strip(), text, page[: match.start()].count("\n") + 2, reason[1] if reason else "")


def lines_of(text: str) -> list[str]:
    """List the commands of a block of shell, each with all its continued lines."""
    joined = text.replace("\\\n", " ")
    return [line for line in map(str.strip, joined.splitlines()) if line and not line.startswith("#")]


def options_of(program: str, command: str) -> set[str]:
    parser = make_parser(program)
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction)).choices
    return {name for action in commands[command]._actions for name in action.option_strings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_options_that_sentences_and_tables_name_are_there(path: Path) -> None:
    if path.name == "CHANGELOG.md":
        return  # says what was
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    for program, command, rest in re.findall(r"`(srflow|basicsr)\s+([\w-]+)\s+([^`]*)`", text):
        assert {*re.findall(r"(?<!\S)--[\w-]+", rest)} <= options_of(program, command), f"{program} {command} {rest}"


# -- commands that are read ------------------------------------------------------------------------------------------


def check_line(line: str) -> None:
    """Refuse a command that its program would refuse, as far as that can be said without running it."""
    for part in re.split(r"\s*(?:&&|;|\|)\s*", line):
        try:
            words = shlex.split(part, comments=True)
        except ValueError:
            continue  # a part of something longer
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words:
            _check_words(words)


def _check_words(words: list[str]) -> None:
    program, *rest = words
    if program in PROGRAMS:
        check_arguments(program, rest)
    elif program == "torchrun":
        known = get_args_parser().parse_args(rest)
        _check_words(["python", *(["-m"] if known.module else []), known.training_script, *known.training_script_args])
    elif program == "srun" and "python" in rest:
        _check_words(rest[rest.index("python") :])
    elif program == "pip":
        _check_extras(rest)
    elif program == "python" and rest[:2] == ["-m", "srflow_plugin"]:
        check_arguments("python -m srflow_plugin", rest[2:])
    elif program == "python" and rest[0] == "-m":
        assert find_spec(rest[1]), f"there is no module {rest[1]}"
    elif program == "python" and rest[0].startswith(("benchmarks/", "recipes/", "tests/")):
        assert (ROOT / rest[0]).is_file(), f"there is no {rest[0]}"


def check_arguments(program: str, words: list[str]) -> None:
    args = make_parser(program).parse_args(words)
    if hasattr(args, "opt") and Path(args.opt).parts[0] in ("options", "recipes"):
        check_options(ROOT / args.opt, force=args.force_yml or ())


def _check_extras(words: list[str]) -> None:
    for word in words:
        for extra in re.findall(r"\[(.*)\]", word):
            assert {*extra.split(",")} <= {*(metadata("srflow_plugin").get_all("Provides-Extra") or [])}, word
        if word.endswith((".txt", ".lock")):
            assert (ROOT / word).exists() or Path(word).exists() or word == "my-basicsr.txt", word


# -- blocks that are run ---------------------------------------------------------------------------------------------


def run_line(line: str) -> None:
    """Run a line of shell here, our own programs in this process."""
    check_line(line)
    words = shlex.split(line, comments=True)
    if words[0] in NOT_HERE or tuple(words[:2]) in LONG:
        return
    commands = {"srflow": srflow_command, "basicsr": basicsr_command}
    if words[0] in commands and not OPERATORS.search(re.sub(r"'[^']*'|#.*", "", line)):
        assert commands[words[0]](words[1:]) == 0
        return
    done = subprocess.run(["bash", "-euc", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def run_block(block: Block, names: dict[str, Any], page: str) -> None:
    """Run or read a block; ``names`` are those of the page's Python."""
    if block.language == "python" and not block.reason:
        exec(compile("\n" * (block.line - 1) + block.text, page, "exec"), names)
    elif block.language == "python":
        compile(block.text, page, "exec")
    elif block.language == "sh":
        for line in lines_of(block.text):
            (check_line if block.reason else run_line)(line)
    elif block.language == "yaml" and not block.reason:
        check_yaml(block.text, page)
    else:
        is_known = block.language in ("text", "yaml", "bibtex") or block.language.startswith("{")
        assert is_known, "a block needs a language: python, sh, yaml, or text for what is printed"


def check_yaml(text: str, page: str) -> None:
    """Check a part of an option file against the schema, where it has sections of ours."""
    for name, section in (parse(text, page) or {}).items():
        kind = SECTIONS.get(name)
        if kind is None:
            assert name in [option.name for option in document.options_of(schema.TopLevel)], f"no section {name}"
            continue
        wanted = document.section_schema(list(document.options_of(kind)))
        wanted.pop("required", None)
        wanted["properties"]["type"] = {}
        jsonschema.validate(section, wanted)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Make the folder that the pages speak of, and the names that their Python begins with."""
    for name in ("options", "recipes"):
        shutil.copytree(ROOT / name, tmp_path / name)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name, command in {"srflow": "-m srflow_plugin", "basicsr": "-m srflow_plugin", "python": ""}.items():
        (bin_ / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {command} "$@"\n')
        (bin_ / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:/usr/bin:/bin")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # srflow sets it in its process, which here is this one
    monkeypatch.chdir(tmp_path)
    image = bicubic_downscale(np.ascontiguousarray(chelsea()[20:276, 100:356]), 4)
    for name in ("photo.png", "folder/a.png", "folder/b.png", "more/c.png", "holiday/beach/d.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image if name == "photo.png" else image[:16, :16]).save(name)
    Image.fromarray(image[:20, :20]).save("face.png")
    mask = np.zeros((256, 256), np.uint8)
    mask[100:120, 100:120] = 255
    Image.fromarray(mask).save("mask.png")
    gt, lq = (torch.from_numpy(a).permute(2, 0, 1)[None] / 255 for a in (image, bicubic_downscale(image, 4)))
    return {"__name__": "page", "image": image, "gt": gt, "lq": lq}


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_blocks_do_what_the_page_says(path: Path, desk: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    page = str(path.relative_to(ROOT))
    for block in blocks_of(path.read_text(encoding="utf-8")):
        try:
            run_block(block, desk, page)
        except (Exception, SystemExit) as error:
            said = capsys.readouterr().err[-2000:]
            pytest.fail(f"{page}:{block.line}: {error!r}\n{said}\n{block.text}", pytrace=False)


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        ("```\nsrflow --help\n```", "needs a language"),
        ("```sh\nsrflow upscale photo.png -o out --num-smaples 5\n```", "SystemExit"),
        ("```sh\nsrflow upscale missing.png -o out\n```", "SystemExit"),
        ("```sh\nfalse\n```", "AssertionError"),
        ("<!-- not run: x -->\n```sh\nbasicsr train -opt options/no.yml\n```", "no.yml"),
        (
            "<!-- not run: x -->\n```sh\nbasicsr train -opt options/train_SRFlow_x4.yml --force_yml train:totl=1\n```",
            "totl",
        ),
        ("<!-- not run: x -->\n```sh\ntorchrun --nproc_per_nodes=4 -m srflow_plugin upscale a -o b\n```", "SystemExit"),
        (
            "<!-- not run: x -->\n```sh\ntorchrun --nproc_per_node=4 -m srflow_plugin upscale a -o b --x\n```",
            "SystemExit",
        ),
        ("<!-- not run: x -->\n```sh\npython benchmarks/no.py\n```", "no.py"),
        ('<!-- not run: x -->\n```sh\npip install -e ".[no]"\n```', "no"),
        ("```python\nimage.no\n```", "AttributeError"),
        ("```yaml\nnetwork_g:\n  num_stepz: 3\n```", "num_stepz"),
        ("```yaml\nnetwork: 3\n```", "no section"),
    ],
)
def test_a_block_that_is_wrong_is_found(block: str, complaint: str, desk: dict[str, Any]) -> None:
    (found,) = blocks_of(block)
    with pytest.raises((Exception, SystemExit)) as error:
        run_block(found, desk, "page")
    assert complaint in repr(error.value)
