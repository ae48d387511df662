"""Turns at the network: one call at a time, and each visitor in turn, however many calls another one makes."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from srflow_plugin.errors import UserError

CALLS_OF_ONE = 4  # unfinished calls of a visitor
CALLS = 32  # of all visitors
PATIENCE = 4.0  # seconds, until a call that nobody waits for is dropped; on a busy machine browsers take a while
PAUSE = 0.25  # seconds, after which it is looked at again
REMEMBERED = 1000  # visitors of whom it is known when they had their last turn

MANY = f"{CALLS_OF_ONE} of your calls are unfinished: wait for their answers"
BUSY = "this page has as many calls as it takes: try again in a minute"
GONE = "nobody waits for this answer any more"


class Visitor(NamedTuple):
    """Visitor of the page: the address, and the browser's tab there."""

    address: str
    session: str


@dataclass(eq=False)
class Call:
    """Call that waits for its turn, or has it."""

    visitor: Visitor
    since: float = field(default_factory=time.monotonic)
    is_heard: bool = False  # the visitor has begun to wait for the answer
    is_dropped: bool = False


class Turns:
    """Order in which calls have the network.

    A visitor who has never had it, or not for the longest time, is next. Beyond CALLS the newest call of whoever has
    most of them is dropped. So is a call whose visitor has left.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[Call] = []
        self._running: Call | None = None
        self._streams: Counter[str] = Counter()  # by session: connections that wait for answers
        self._served: OrderedDict[str, float] = OrderedDict()  # addresses and sessions, with the time of the last turn

    @property
    def is_taken(self) -> bool:
        """Say whether a call has its turn now."""
        return self._running is not None

    @contextmanager
    def listening(self, session: str) -> Iterator[None]:
        """Note that a visitor waits for answers in the block."""
        with self._changed:
            self._streams[session] += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._streams[session] -= 1
                self._streams += Counter()  # forgets those that are 0
                self._changed.notify_all()

    def check(self, session: str) -> None:
        """Refuse a further call of a visitor who has too many."""
        with self._changed:
            if sum(call.visitor.session == session for call in self._unfinished()) >= CALLS_OF_ONE:
                raise UserError(MANY)

    @contextmanager
    def taken(self, visitor: Visitor) -> Iterator[None]:
        """Wait for the visitor's turn, which is the block.

        Raises:
            UserError: there are too many calls, or nobody waits for the answer.
        """
        with self._changed:
            self.check(visitor.session)
            call = Call(visitor)
            self._waiting.append(call)
            try:
                self._wait(call)
                self._running = call
            finally:
                if call in self._waiting:
                    self._waiting.remove(call)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._running = None
                for name in visitor:
                    self._served[name] = time.monotonic()
                    self._served.move_to_end(name)
                while len(self._served) > REMEMBERED:
                    self._served.popitem(last=False)
                self._changed.notify_all()

    def _unfinished(self) -> list[Call]:
        return [*self._waiting, *filter(None, [self._running])]

    def _wait(self, call: Call) -> None:
        silent_since = call.since
        while True:
            if self._streams[call.visitor.session]:
                silent_since = time.monotonic()
                if not call.is_heard:
                    call.is_heard = True
                    self._make_room()
            if call.is_dropped:
                raise UserError(BUSY)
            if time.monotonic() - silent_since > PATIENCE:
                raise UserError(GONE)
            if self._running is None and call is self._next():
                return
            self._changed.wait(PAUSE)

    def _heard(self) -> list[Call]:
        return [call for call in self._waiting if call.is_heard]

    def _make_room(self) -> None:
        waiting = self._heard()
        if len(waiting) >= CALLS:
            counts = Counter(name for call in self._unfinished() if call.is_heard for name in call.visitor)
            greediest = max(waiting, key=lambda call: (*(counts[name] for name in call.visitor), call.since))
            greediest.is_dropped = True
            self._waiting.remove(greediest)
            self._changed.notify_all()

    def _next(self) -> Call | None:
        """Find the call whose visitor has waited longest: first by address, then by session."""

        def order(call: Call) -> tuple[float, ...]:
            return (*(self._served.get(name, 0) for name in call.visitor), call.since)

        return min(self._heard(), key=order, default=None)
