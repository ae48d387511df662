"""Turns at the network, with threads in place of visitors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from srflow_plugin.demo import turns as module
from srflow_plugin.demo.turns import BUSY, CALLS, CALLS_OF_ONE, GONE, MANY, Turns, Visitor
from srflow_plugin.errors import UserError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    monkeypatch.setattr(module, "PAUSE", 0.05)


class Crowd:
    """Visitors whose calls are threads; a call ends when ``end`` is set."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.end = threading.Event()
        self.served: list[str] = []
        self.refused: list[str] = []
        self.most_at_once = self.at_once = 0
        self.threads: list[threading.Thread] = []

    def ask(self, session: str, address: str = "one", takes: float = 0.002) -> None:
        self.threads.append(threading.Thread(target=self._ask, args=(Visitor(address, session), takes)))
        self.threads[-1].start()
        time.sleep(0.003)  # so that they come in this order

    def _ask(self, visitor: Visitor, takes: float) -> None:
        try:
            with self.turns.taken(visitor):
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                self.served.append(visitor.session)
                self.end.wait(10)
                time.sleep(takes)
                self.at_once -= 1
        except UserError as error:
            self.refused.append(str(error))

    def finish(self) -> None:
        self.end.set()
        for thread in self.threads:
            thread.join()


@contextmanager
def crowd(*listening: str) -> Iterator[Crowd]:
    turns = Turns()
    with ExitStack() as stack:
        for session in listening:
            stack.enter_context(turns.listening(session))
        yield (visitors := Crowd(turns))
        visitors.finish()


def test_one_call_at_a_time_and_each_visitor_in_turn() -> None:
    with crowd("a", "b", "c") as visitors:
        for session in "aaaabbc":
            visitors.ask(session)
        visitors.finish()
    assert visitors.most_at_once == 1 and visitors.refused == []
    assert "".join(visitors.served) == "abcabaa"  # and not aaaabbc


def test_a_visitor_with_too_many_calls() -> None:
    with crowd("a", "b") as visitors:
        for _ in range(20):
            visitors.ask("a")
        with pytest.raises(UserError, match="of your calls are unfinished"):
            visitors.turns.check("a")
        visitors.turns.check("b")
        visitors.ask("b")
        visitors.finish()
    assert visitors.refused == [MANY] * (20 - CALLS_OF_ONE)
    assert visitors.served.index("b") == 1
    visitors.turns.check("a")


def test_calls_that_nobody_waits_for_are_dropped() -> None:
    with crowd("honest") as visitors:
        for number in range(60):
            visitors.ask(f"flood {number}")
        start = time.monotonic()
        visitors.ask("honest")
        visitors.finish()
        assert time.monotonic() - start < 2
    assert visitors.served == ["honest"] and visitors.refused == [GONE] * 60


def test_who_leaves_is_dropped_and_who_comes_back_is_not() -> None:
    turns = Turns()
    with turns.listening("first"):
        visitors = Crowd(turns)
        visitors.ask("first")
        with turns.listening("leaves"), turns.listening("returns"):
            visitors.ask("leaves")
            visitors.ask("returns")
        time.sleep(0.1)  # as a browser that opens its connection anew
        with turns.listening("returns"):
            time.sleep(0.4)
            visitors.finish()
    assert visitors.served == ["first", "returns"] and visitors.refused == [GONE]


@pytest.mark.parametrize(("address", "sessions"), [("elsewhere", 2 * CALLS), ("one", CALLS // 2)])
def test_who_floods_with_many_sessions_gives_way(address: str, sessions: int) -> None:
    flood = [f"flood {number}" for number in range(sessions)]
    with crowd(*flood, "honest") as visitors:
        for session in flood:
            for _ in range(3):
                visitors.ask(session)
        visitors.ask("honest", address)
        visitors.finish()
    assert visitors.served.index("honest") <= sessions and len(visitors.served) <= CALLS
    assert set(visitors.refused) == {BUSY}
    if address == "elsewhere":
        assert visitors.served[1] == "honest"


def test_an_error_in_a_turn_ends_it() -> None:
    turns = Turns()
    with turns.listening("a"):
        for _ in range(3):
            with pytest.raises(ZeroDivisionError), turns.taken(Visitor("one", "a")):
                _ = 1 / 0
        with turns.taken(Visitor("one", "a")):
            pass
