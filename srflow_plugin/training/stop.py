"""Signals that ask a run to stop, noted at once and answered between two images or iterations."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from torch.utils.data import Dataset

from srflow_plugin.data.checked import CheckedImages


class StopRequested(Exception):  # noqa: N818  (not an error)
    """Raised between two images or iterations."""


class StopRequest:
    """SIGTERM (pre-emption) or SIGINT (Ctrl-C), noted in the block; the second of its kind acts at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        signal.signal(number, self._previous[self.signal])

    def __str__(self) -> str:
        return self.signal.name if self.signal else "another process"

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        return 130 if self.signal is signal.SIGINT else 0


class StopBetweenImages(Dataset[Any]):
    """Data set for validation whose loop ends with StopRequested when that is asked for."""

    def __init__(self, images: CheckedImages, stop: StopRequest) -> None:
        self.images = images
        self.opt = images.opt
        self.stop = stop

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        if self.stop.requested:
            raise StopRequested
        return self.images[index]
