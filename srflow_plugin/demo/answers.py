"""Functions behind the page's buttons: from the values of its components to those that it shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from srflow_plugin.applications.enlarge import face_warning
from srflow_plugin.applications.redraw import RedrawnPhotograph
from srflow_plugin.demo.session import Answer, Session, notes_on
from srflow_plugin.demo.visits import Edit, Shown, begin, forget, keep
from srflow_plugin.errors import UserError
from srflow_plugin.images.rows import read_photograph
from srflow_plugin.images.writing import write_photograph

NO_IMAGE = "an image is missing: choose one first"
NO_PICTURE = "there is no picture yet: super-resolve an image first, and click Draw a part of the picture again"


class Answers:
    """Functions behind the page's buttons, for networks by name; each visitor's pictures are put into ``folder``."""

    def __init__(self, sessions: dict[str, Session], folder: Path) -> None:
        self.sessions = sessions
        self.folder = folder

    def upscale(
        self,
        name: str,
        path: str | None,
        is_gt: bool,
        temperature: float,
        samples: int,
        seed: float | None,
        shown: Shown | None,
    ) -> tuple[Any, ...]:
        with told():
            session, image = self.sessions[name], existing(path, NO_IMAGE)
            photograph = session.read(image, is_gt)
            answer = session.upscale(photograph, is_gt, temperature, int(samples), int(seed or 0))
            return self._shown(answer, name, image, shown)

    def compare(
        self, name: str, path: str | None, is_gt: bool, seed: float | None, shown: Shown | None
    ) -> tuple[Any, ...]:
        with told():
            session, image = self.sessions[name], existing(path, NO_IMAGE)
            answer = session.compare_temperatures(session.read(image, is_gt), is_gt, int(seed or 0))
            return self._shown(answer, name, image, shown)

    def choose(self, title: str, shown: Shown | None) -> tuple[Path, Path] | None:
        """Compare bicubic with another picture."""
        return (shown.pictures["bicubic"], shown.pictures[title]) if shown else None

    def transfer(self, name: str, edited: str | None, original: str | None) -> Image.Image:
        with told():
            session = self.sessions[name]
            paths = [existing(path, NO_IMAGE) for path in (edited, original)]
            result = session.transfer(*(session.read(path, True) for path in paths))
        return Image.fromarray(result._replace(bits=8).quantised())

    def begin(self, title: str | None, shown: Shown | None, edit: Edit | None) -> tuple[Any, ...]:
        """Take a picture that is shown to the tab in which it is drawn again."""
        with told():
            if shown is None or title is None:
                raise UserError(NO_IMAGE)
            forget(edit)
            return self._edited(begin(shown.pictures[title], shown.lq, shown.network, self.folder), None)

    def begin_own(self, name: str, path: str | None, edit: Edit | None) -> tuple[Any, ...]:
        """Take a visitor's own picture there."""
        with told():
            image = existing(path, NO_IMAGE)
            picture = self.sessions[name].read(image, True)
            forget(edit)
            own = begin(image, None, name, self.folder)
            write_photograph(own.now, picture)
            return self._edited(own, None, *notes_on(image))

    def draw(
        self, edit: Edit | None, painting: dict[str, Any] | None, temperature: float, seed: float | None
    ) -> tuple[Any, ...]:
        """Draw what is painted anew."""
        return self._redrawn(edit, painting, temperature=temperature, seed=int(seed or 0))

    def strengthen(self, edit: Edit | None, painting: dict[str, Any] | None, factor: float) -> tuple[Any, ...]:
        """Make what is painted calmer or livelier."""
        return self._redrawn(edit, painting, factor=factor)

    def undo(self, edit: Edit | None, painting: dict[str, Any] | None) -> tuple[Any, ...]:
        """Take the last change back."""
        with told():
            if edit is None:
                raise UserError(NO_PICTURE)
            is_first = len(edit.versions) == 1
            done = "There is nothing to take back." if is_first else "The last change is taken back."
            return self._edited(edit.undone(), painting, done)

    def _redrawn(self, edit: Edit | None, painting: dict[str, Any] | None, **how: Any) -> tuple[Any, ...]:
        with told():
            if edit is None:
                raise UserError(NO_PICTURE)
            picture = read_photograph(edit.now)
            lq = read_photograph(edit.lq) if edit.lq else None
            mask = painted(painting, picture.rgb.shape[:2])
            result: RedrawnPhotograph = self.sessions[edit.network].redraw(picture, lq, mask, **how)
            done = f"{result.changed} of {mask.size} pixels changed; all others are the same to the bit."
            return self._edited(edit.changed(result.photograph), painting, done, *result.notes)

    def _shown(self, answer: Answer, name: str, image: Path, before: Shown | None) -> tuple[Any, ...]:
        """Make the values of the first tab's components."""
        shown = keep(answer, name, self.folder)
        forget(before)
        titles = list(shown.pictures)
        figures = "\n".join(
            ["| figure | value |", "|---|---|", *(f"| {what} | {value} |" for what, value in answer.figures)]
        )
        height, width = answer.lq.rgb.shape[:2]
        large_height, large_width = answer.pictures[0][1].rgb.shape[:2]
        unfit = face_warning(self.sessions[name].network, name, height, width)
        sizes = f"{width}x{height} became {large_width}x{large_height}."
        return (
            " ".join([sizes, *notes_on(image), *(f"{line}." for line in unfit), *answer.notes]),
            [(path, title) for title, path in shown.pictures.items()],
            gr.Dropdown(titles, value=titles[1]),
            self.choose(titles[1], shown),
            answer.spread,
            figures,
            gr.Markdown(visible=True),
            str(shown.archive),
            shown,
        )

    def _edited(self, edit: Edit, painting: dict[str, Any] | None, *lines: str) -> tuple[Any, ...]:
        """Make the values of the second tab's components."""
        layers = (painting or {}).get("layers") or []
        editor = {"background": str(edit.now), "layers": layers, "composite": None}
        changes = len(edit.versions) - 1
        status = " ".join([*lines, f"Changes that can be taken back: {changes}."])
        return editor, (edit.before, edit.now), status, str(edit.now), edit


def painted(painting: dict[str, Any] | None, size: tuple[int, ...]) -> np.ndarray:
    """Find what is painted on the layers of Gradio's editor: bool, of a size (H, W)."""
    mask = np.zeros(size, bool)
    for layer in (painting or {}).get("layers") or []:
        alpha = layer.getchannel("A").resize(size[::-1], Image.Resampling.NEAREST)
        mask |= np.asarray(alpha) > 0
    if not mask.any():
        raise UserError("nothing is painted: paint over the part that is to be drawn again")
    return mask


def existing(path: str | None, otherwise: str) -> Path:
    """Refuse an image that is not there."""
    if path is None:
        raise UserError(otherwise)
    return Path(path)


@contextmanager
def told() -> Iterator[None]:
    """Turn a user's mistake into a line on the page."""
    try:
        yield
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None
