"""Boards beside TensorBoard: each with TensorBoard's few methods, so that whoever shows something knows one writer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from srflow_plugin.options.schema import Section


class Writers:
    """Several writers as one: what it is told, each is."""

    def __init__(self, writers: Sequence[Any]) -> None:
        self._writers = list(writers)

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Give a method that calls that of each."""

        def method(*arguments: Any, **settings: Any) -> None:
            for writer in self._writers:
                getattr(writer, name)(*arguments, **settings)

        return method


class TrackioWriter:
    """TensorBoard's methods for Trackio: a row for each iteration, on this machine.

    Args:
        project: of Trackio.
        name: of the run.
        opt: the options, which are shown with it.
        goes_on: the run of that name, or else a new one.
    """

    def __init__(self, project: str, name: str, opt: Section, goes_on: bool) -> None:
        import trackio

        self._image = trackio.Image
        quietly = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        resume = "allow" if goes_on else "never"
        self._run = trackio.init(project=project, name=name, config=opt, resume=resume, **quietly)
        self._step = 0
        self._row: dict[str, Any] = {}

    def add_scalar(self, tag: str, value: Any, step: int) -> None:
        """Show a number."""
        self._add(tag, float(value), step)

    def add_image(self, tag: str, image: Any, step: int, dataformats: str = "CHW") -> None:
        """Show a picture, uint8 or float in [0, 1]."""
        pixels = np.asarray(image)
        pixels = pixels.transpose([dataformats.index(axis) for axis in "HWC"])
        if pixels.dtype != np.uint8:
            pixels = (255 * pixels.clip(0, 1)).round().astype(np.uint8)
        self._add(tag, self._image(pixels), step)

    def flush(self) -> None:
        """Hand over the row so far."""
        if self._row:
            self._run.log(self._row, step=self._step)
            self._row = {}

    def close(self) -> None:
        """Hand over what is left, and wait until it is written."""
        self.flush()
        self._run.finish()

    def _add(self, tag: str, value: Any, step: int) -> None:
        if step != self._step:
            self.flush()
            self._step = step
        self._row[tag] = value
