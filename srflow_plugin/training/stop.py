"""Signals that ask a run to stop, noted at once and answered between two images or iterations.

Schedulers, supervisors and terminals send them to all processes of a run: those that read images leave them to theirs.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from torch.utils.data import Dataset

from srflow_plugin.data.checked import CheckedImages

NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGBREAK")  # the last one is Windows' Ctrl-Break
STOP_SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


class StopRequested(Exception):  # noqa: N818  (not an error)
    """Raised between two images or iterations."""


class StopRequest:
    """SIGTERM (pre-emption), SIGINT (Ctrl-C), SIGUSR1 or SIGUSR2, noted in the block; the second of its kind acts at
    once.

    Python answers signals in its main thread: a run in another leaves them to the program that has started it.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number in self._previous:
            self._give_back(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._give_back(self.signal)

    def _give_back(self, number: signal.Signals) -> None:
        previous = self._previous[number]  # None where it is none of Python's
        signal.signal(number, signal.SIG_DFL if previous is None else previous)

    def __str__(self) -> str:
        return self.signal.name if self.signal else "another process"

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        return 130 if self.signal is signal.SIGINT else 0


def leave_signals_to_parent(worker: int) -> None:
    """Ignore, in a process that reads images, what asks the run to stop: it ends with the process that it reads for."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class StopBetweenImages(Dataset[Any]):
    """Data set for validation whose loop ends with StopRequested when that is asked for."""

    def __init__(self, images: CheckedImages, stop: StopRequest) -> None:
        self.images = images
        self.opt = images.opt
        self.stop = stop

    def __getattr__(self, name: str) -> Any:  # such as data_info, which BasicSR's video models ask for
        if "images" not in vars(self):
            raise AttributeError(name)
        return getattr(self.images, name)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        if self.stop.requested:
            raise StopRequested
        return self.images[index]
