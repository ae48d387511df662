"""Progress is shown on standard error, with tqdm or without."""

from __future__ import annotations

import sys

import pytest

from srflow_plugin.progress import say, tell, with_progress


@pytest.mark.parametrize("has_tqdm", [True, False])
def test_all_items_come_and_their_number_is_told(
    has_tqdm: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not has_tqdm:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    assert list(with_progress(["a", "b", "c"], "tile")) == ["a", "b", "c"]
    told = capsys.readouterr()
    assert told.out == "" and "tile" in told.err and "3" in told.err


def test_nothing_is_shown_where_nobody_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(with_progress([1, 2], "tile", disable=True)) == [1, 2]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("has_tqdm", [True, False])
def test_a_line_is_one_whatever_it_holds(
    has_tqdm: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not has_tqdm:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    tell("a\x1b[2J\nb\u202e")
    say("c\rd")
    assert capsys.readouterr() == ("c\\rd\n", "a\\x1b[2J\\nb\\u202e\n")
