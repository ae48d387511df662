"""Types of options: what conforms, and how they are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pytest

from srflow_plugin.options.types import conforms, describe, join


@pytest.mark.parametrize(
    ("hint", "right", "wrong"),
    [
        (int, [0, -1], [True, 1.0, "1", None]),
        (float, [0, 0.5, float("inf")], [False, "0.5", None]),
        (bool, [True, False], [0, 1, "true"]),
        (str, ["", "a"], [1, None]),
        (int | None, [1, None], [0.5, False]),
        (float | list[float], [1, [1, 0.5], []], [["a"], [True], "1"]),
        (Sequence[int], [[1], (1, 2)], [[0.5], 1, "12"]),
        (Literal["disk", "lmdb"], ["disk"], ["tape", None, []]),
        (int | Literal["auto"], [4, "auto"], ["big", 4.5]),
        (dict[str, Any], [{}, {"a": 1}], [[], "a", None]),
        (Any, [None, 1, []], []),
    ],
)
def test_values_and_types(hint: Any, right: list[Any], wrong: list[Any]) -> None:
    assert [value for value in right if not conforms(value, hint)] == []
    assert [value for value in wrong if conforms(value, hint)] == []


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int | None, "a whole number or none"),
        (float | list[float], "a number or a list, each a number"),
        (Literal["a", "b"], "a or b"),
        (Literal["none", "b"] | None, "none or b"),
        (bool, "true or false"),
        (dict[str, Any], "a section with keys"),
    ],
)
def test_types_in_words(hint: Any, text: str) -> None:
    assert describe(hint) == text


def test_names_below_names() -> None:
    assert join("train.optim_g", "lr") == "train.optim_g.lr" and join("", "name") == "name"
