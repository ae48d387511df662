"""What is missing is named with the command that installs it; what a line may hold."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from srflow_plugin import errors
from srflow_plugin.errors import SHORT, UserError, cell, install_command, nearest, needs, printable, short
from tests.helpers import CLONE, ROOT


@CLONE
def test_the_missing_module_and_its_extra_are_named() -> None:
    with pytest.raises(UserError) as error, needs("demo", "srflow demo"):
        import_module("no_such_module")
    expected = f'srflow demo needs no_such_module, which is not installed: pip install -e "{ROOT}[demo]"'
    assert str(error.value) == expected


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), needs("demo", "srflow demo"):
        raise ZeroDivisionError


def test_without_a_clone_every_package_of_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "site-packages" / "srflow_plugin" / "errors.py"))
    assert install_command("demo") == 'pip install "gradio>=6" "scikit-image>=0.22"'
    assert '"lmdb>=1.4"' in install_command("train")


OBEYED = "\0\a\b\t\n\v\f\r\x1b\x7f\x85\x9b\u200b\u200e\u2028\u2029\u202e\u2066\ufeff\udce9\U000e0041"


@pytest.mark.parametrize("letter", OBEYED, ids=ascii)
def test_what_a_terminal_would_obey_is_escaped(letter: str) -> None:
    text = printable(f"a{letter}é")
    assert text.isprintable() and text[0] + text[-1] == "aé" and text.encode("ascii", "replace")
    assert printable(f"a{letter}é", keep=letter) == f"a{letter}é" and printable("テスト é|'\\") == "テスト é|'\\"


def test_a_cell_of_a_table_ends_no_other_cell() -> None:
    assert cell("a|b\n|c|") == "a\\|b\\n\\|c\\|"


class Large:
    def __repr__(self) -> str:
        return "x" * 10**6


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


LARGE = ["a" * 10**6, "\x1b" * 10**6, ENDLESS, [[[Large()]]], {("a" * 999): {1: Large()}}, Large()]


@pytest.mark.parametrize("value", LARGE, ids=["text", "control characters", "itself", "deep", "keys", "object"])
def test_a_value_in_a_message_is_short(value: Any) -> None:
    assert len(short(value)) <= SHORT and short(value).isprintable()


@pytest.mark.parametrize("value", [1, 0.5, None, "four", ["a"], {"t": 1}, [1, 2], True, "a'b"])
def test_usual_values_are_shown_as_they_are(value: Any) -> None:
    assert short(value) == repr(value)


def test_the_known_name_that_is_meant() -> None:
    names = ["calculate_psnr", "calculate_ssim", "scale"]
    assert nearest("scal", names) == "; did you mean scale?"
    assert nearest("psnr", names) == "; did you mean calculate_psnr?"  # part of it
    assert nearest("zzz", names) == "; known are calculate_psnr, calculate_ssim, scale"
    assert nearest(None, ["a"]) == "; known are a"
