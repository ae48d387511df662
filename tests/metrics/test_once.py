"""Answers that are found once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from srflow_plugin.metrics.once import Once


def test_the_latest_answers_are_kept() -> None:
    found: list[str] = []
    once: Once[str, str] = Once(2)

    def ask(key: str) -> str:
        return once(key, lambda: found.append(key) or key.upper())  # type: ignore[func-returns-value]

    assert [ask(key) for key in "abaca"] == list("ABACA")
    assert found == list("abc")
    ask("b")  # the oldest, which c has put out
    assert found == list("abcb")


def test_threads_that_ask_at_once_wait_for_one() -> None:
    found: list[int] = []
    once: Once[str, int] = Once(1)

    def find() -> int:
        time.sleep(0.05)
        found.append(len(found))
        return found[-1]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: once("key", find), range(4))) == [0] * 4


def test_a_failure_is_everybodys_and_not_kept() -> None:
    once: Once[str, int] = Once(1)
    with pytest.raises(ZeroDivisionError):
        once("key", lambda: 1 // 0)
    assert once("key", lambda: 1) == 1
