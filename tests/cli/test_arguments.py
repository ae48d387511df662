"""Arguments that several commands have: one name, one meaning, one default everywhere."""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import pytest

from srflow_plugin.cli.arguments import check_folder, check_inputs, in_range
from srflow_plugin.cli.main import TOOLS
from srflow_plugin.errors import UserError
from tests.helpers import refusal, srflow

# Options whose default differs on purpose.
ON_PURPOSE = {
    "benchmark": {"checkpoint", "temperature"},  # several
    "demo": {"checkpoint"},
    "export": {"precision"},  # of a file, which is for other machines
    "redraw": {"seed"},  # is refused beside --factor, and 0 else
}
WITH_A_NETWORK = {*TOOLS} - {"prepare", "convert", "export"}  # that draws or encodes with it


def actions(command: str) -> dict[str, argparse.Action]:
    parser = argparse.ArgumentParser()
    TOOLS[command].add_arguments(parser)
    return {action.dest: action for action in parser._actions}


def test_an_option_has_one_default_and_is_never_required_twice_differently() -> None:
    defaults: dict[str, set[str]] = defaultdict(set)
    for command in TOOLS:
        for name, action in actions(command).items():
            if action.option_strings and name not in ON_PURPOSE.get(command, ()):
                defaults[name].add(repr(action.default))
    shared = ("checkpoint", "temperature", "seed", "tile", "device", "overwrite", "precision")
    assert {name: defaults[name] for name in shared} == {
        "checkpoint": {"None"},
        "temperature": {"0.8"},
        "seed": {"0"},
        "tile": {"'auto'"},
        "device": {"'auto'"},
        "precision": {"'auto'"},
        "overwrite": {"False"},
    }


@pytest.mark.parametrize("command", sorted(WITH_A_NETWORK))
def test_the_network_and_the_device_are_chosen_by_the_same_options(command: str) -> None:
    known = actions(command)
    assert not known["checkpoint"].required and known["device"].default == "auto"
    if "output" in known and command != "benchmark":  # which goes on with what is there
        assert known["overwrite"].help == "replace files that are there"
        assert known["output"].required or "default: " in str(known["output"].help)


@pytest.mark.parametrize(
    ("text", "low", "below", "message"),
    [
        ("nan", 0, None, "nan must be 0 or more"),
        ("inf", 0, None, "inf must be 0 or more, and finite"),
        ("-inf", 0, None, "-inf must be 0 or more"),
        ("1e999", 0, None, "1e999 must be 0 or more, and finite"),
        ("nan", 0, 1, "nan must be from 0 to below 1"),
        ("1e30", 0, None, "1e30 is too large"),
        ("2147483648", 0, None, "2147483648 is too large; at most 2,147,483,647"),
        ("1" * 5000, 0, None, "is too long for a number"),
    ],
)
def test_numbers_that_are_none_are_refused(text: str, low: float, below: float | None, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        in_range(float, low, *([] if below is None else [below]))(text)
    assert in_range(float, 0)("0.5") == 0.5 and in_range(int, 1)("7") == 7


def test_inputs_and_folders_are_checked_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_inputs(tmp_path / "file", None)
    for path, message in ((tmp_path, "is a folder; give a file"), (tmp_path / "no", "does not exist; correct")):
        with pytest.raises(UserError, match=message):
            check_inputs(path)
    check_folder(tmp_path, ["other"], overwrite=False)
    check_folder(tmp_path, ["file"], overwrite=True)
    check_folder(tmp_path / "new", ["file"], overwrite=False)
    for path, message in (
        (tmp_path, "file exists; give --overwrite or another name"),
        (tmp_path / "file", "file is a file; name a folder"),
        (tmp_path / "no" / "new", "is not a folder; make it first"),
    ):
        with pytest.raises(UserError, match=message):
            check_folder(path, ["file"], overwrite=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--num-samples 1e8", "argument --num-samples: invalid whole number value: '1e8'"),
        ("--num-samples 100000000", "argument --num-samples: 100000000 is too large; at most 10,000"),
        (f"--num-samples {'9' * 5000}", "is too long for a number"),
        (f"--seed {2**70}", "must be from -9223372036854775808 to below 9223372036854775808"),
        ("--temperature 1e30", "argument --temperature: 1e30 is too large; at most 100"),
        ("--temperature nan", "argument --temperature: nan must be 0 or more"),
        ("--tile 1000000", "argument --tile: 1000000 is too large; at most 65,536"),
        ("--max-pixels 99999999999", "is too large; at most 2,147,483,647"),
        ("--scale 99999999999999", "is too large"),
        ("--quality 1e2", "invalid whole number value"),
    ],
)
def test_numbers_beyond_all_use_get_a_line(
    arguments: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refusal(capsys, "upscale", str(tmp_path), "-o", str(tmp_path / "out"), *arguments.split())
    assert message in line and len(line) < 300


@pytest.mark.usefixtures("studio")
@pytest.mark.parametrize(
    "command",
    [
        "upscale lr.png -o out",
        "std-map lr.png -o out.npy --num-samples 2",
        "restore hr.png -o out.png",
        "redraw hr.png --mask hr.png -o out.png",
    ],
)
def test_a_temperature_at_which_samples_break_is_said(capsys: pytest.CaptureFixture[str], command: str) -> None:
    for temperature, is_told in (("1.3", True), ("1.2", False)):
        srflow(f"{command} --checkpoint net.pth --temperature {temperature} --overwrite")
        assert ("temperature 1.3 is above 1.2" in capsys.readouterr().err) == is_told


@pytest.mark.usefixtures("studio")
@pytest.mark.parametrize(("name", "is_lossy"), [("a.png", False), ("a.tif", False), ("a.jpg", True), ("a.webp", True)])
def test_a_format_that_loses_detail_is_said(capsys: pytest.CaptureFixture[str], name: str, is_lossy: bool) -> None:
    srflow(f"transfer hr.png other.png -o {name} --checkpoint net.pth")
    assert ("It is lossy" in capsys.readouterr().out) == is_lossy
