"""Answers that are found once, though several metrics and threads ask. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key")
Answer = TypeVar("Answer")


class Once(Generic[Key, Answer]):
    """The latest answers: a thread that asks what another is finding out waits for it.

    Args:
        kept: number of answers that are remembered.
    """

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self._lock = Lock()
        self._answers: dict[Key, Future[Answer]] = {}  # the latest last

    def __call__(self, key: Key, find: Callable[[], Answer]) -> Answer:
        """Find the answer, unless it is known; a failure is not kept."""
        with self._lock:
            known = self._answers.pop(key, None)
            answer = self._answers[key] = known or Future()
            while len(self._answers) > self.kept:
                del self._answers[next(iter(self._answers))]
        if known is None:
            try:
                answer.set_result(find())
            except BaseException as error:
                answer.set_exception(error)
                with self._lock:
                    if self._answers.get(key) is answer:
                        del self._answers[key]
                raise
        return answer.result()

    def forget(self) -> None:
        """Forget all answers, and give back the memory that they take."""
        with self._lock:
            self._answers.clear()
