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
from srflow_plugin.checkpoints.shipped import CHOSEN, SHIPPED
from srflow_plugin.demo.pictures import without_folder
from srflow_plugin.demo.session import Answer, Session, notes_on
from srflow_plugin.demo.turns import Turns, Visitor
from srflow_plugin.demo.visits import Edit, Shown, begin, forget, keep
from srflow_plugin.errors import UserError
from srflow_plugin.images.files import open_image, read_bytes
from srflow_plugin.images.rows import read_photograph
from srflow_plugin.images.writing import write_photograph
from srflow_plugin.memory import is_shortage

BY_PICTURE = "Auto"
NO_IMAGE = "an image is missing: choose one first"
LOST = "a picture is not there any more: upload the image, and super-resolve it again"
SHORTAGE = "there is not enough memory for this: take a smaller image, or fewer samples"
NO_PICTURE = "there is no picture yet: super-resolve an image first, and click Draw a part of the picture again"


TEMPERATURES = (0.0, 1.2)
SAMPLES = (1, 10)
SEEDS = (-(2**63), 2**63 - 1)  # what torch takes
FACTORS = (0.0, 1.5)


class Answers:
    """Functions behind the page's buttons.

    Calls that come with Gradio's request wait for their visitor's turn.

    Args:
        sessions: networks by name.
        folder: each visitor's pictures are put into folders of their own there.
        turns: order of the visitors' calls.
    """

    def __init__(self, sessions: dict[str, Session], folder: Path, turns: Turns | None = None) -> None:
        self.sessions = sessions
        self.folder = folder
        self.turns = turns or Turns()
        own = {session.name: label for label, session in sessions.items()}
        self.chosen = {word: own[SHIPPED[word].name] for word in CHOSEN if SHIPPED[word].name in own}
        self.names = [BY_PICTURE, *sessions] if len(self.chosen) == len(CHOSEN) else list(sessions)

    def upscale(
        self,
        name: str,
        path: str | None,
        is_gt: bool,
        temperature: float,
        samples: int,
        seed: float | None,
        shown: Shown | None,
        request: gr.Request | None = None,
    ) -> tuple[Any, ...]:
        with self._turn(request):
            name, image, said = self._chosen(name, path, is_gt)
            session = self.sessions[name]
            temperature = checked("temperature", temperature, *TEMPERATURES)
            samples, number = int(checked("samples", samples, *SAMPLES)), checked_seed(seed)
            answer = session.upscale(session.read(image, is_gt), is_gt, temperature, samples, number)
            return self._shown(answer, said, name, image, shown)

    def compare(
        self,
        name: str,
        path: str | None,
        is_gt: bool,
        seed: float | None,
        shown: Shown | None,
        request: gr.Request | None = None,
    ) -> tuple[Any, ...]:
        with self._turn(request):
            number = checked_seed(seed)
            name, image, said = self._chosen(name, path, is_gt)
            session = self.sessions[name]
            answer = session.compare_temperatures(session.read(image, is_gt), is_gt, number)
            return self._shown(answer, said, name, image, shown)

    def choose(self, title: str, shown: Shown | None) -> tuple[Path, Path] | None:
        """Compare bicubic with another picture."""
        return (shown.pictures["bicubic"], shown.pictures[title]) if shown and str(title) in shown.pictures else None

    def transfer(
        self, name: str, edited: str | None, original: str | None, request: gr.Request | None = None
    ) -> Image.Image:
        with self._turn(request):
            session = self.sessions[self._named(name)]
            paths = [existing(path, NO_IMAGE) for path in (edited, original)]
            result = session.transfer(*(session.read(path, True) for path in paths))
        return Image.fromarray(result._replace(bits=8).quantised())

    def begin(
        self, title: str | None, shown: Shown | None, edit: Edit | None, request: gr.Request | None = None
    ) -> tuple[Any, ...]:
        """Take a picture that is shown to the tab in which it is drawn again."""
        with self._turn(request):
            if shown is None or not isinstance(title, str) or title not in shown.pictures:
                raise UserError(NO_IMAGE)
            forget(edit)
            return self._edited(begin(shown.pictures[title], shown.lq, shown.network, self.folder), None)

    def begin_own(
        self, name: str, path: str | None, edit: Edit | None, request: gr.Request | None = None
    ) -> tuple[Any, ...]:
        """Take a visitor's own picture there."""
        with self._turn(request):
            name, image = self._named(name), existing(path, NO_IMAGE)
            picture = self.sessions[name].read(image, True)
            forget(edit)
            own = begin(image, None, name, self.folder)
            write_photograph(own.now, picture)
            return self._edited(own, None, *notes_on(image))

    def draw(
        self,
        edit: Edit | None,
        painting: dict[str, Any] | None,
        temperature: float,
        seed: float | None,
        request: gr.Request | None = None,
    ) -> tuple[Any, ...]:
        """Draw what is painted anew."""
        with self._turn(request):
            temperature = checked("temperature", temperature, *TEMPERATURES)
            return self._redrawn(edit, painting, temperature=temperature, seed=checked_seed(seed))

    def strengthen(
        self, edit: Edit | None, painting: dict[str, Any] | None, factor: float, request: gr.Request | None = None
    ) -> tuple[Any, ...]:
        """Make what is painted calmer or livelier."""
        with self._turn(request):
            return self._redrawn(edit, painting, factor=checked("factor", factor, *FACTORS))

    def undo(
        self, edit: Edit | None, painting: dict[str, Any] | None, request: gr.Request | None = None
    ) -> tuple[Any, ...]:
        """Take the last change back."""
        with self._turn(request):
            edit = up_to_date(edit)
            is_first = len(edit.versions) == 1
            done = "There is nothing to take back." if is_first else "The last change is taken back."
            return self._edited(edit.undone(), painting, done)

    def _redrawn(self, edit: Edit | None, painting: dict[str, Any] | None, **how: Any) -> tuple[Any, ...]:
        edit = up_to_date(edit)
        picture = read_photograph(edit.now)
        lq = read_photograph(edit.lq) if edit.lq else None
        mask = painted(painting, (picture.rgb.shape[0], picture.rgb.shape[1]))
        result: RedrawnPhotograph = self.sessions[edit.network].redraw(picture, lq, mask, **how)
        done = f"{result.changed} of {mask.size} pixels changed; all others are the same to the bit."
        return self._edited(edit.changed(result.photograph), painting, done, *result.notes)

    def next_seed(self, seed: float | None) -> int:
        with self._told():
            return checked_seed(seed) + 1

    def _named(self, name: str) -> str:
        """Name a network of the page; for pictures that are large already Auto is the one for clean ones."""
        if not isinstance(name, str) or name not in self.names:
            raise UserError(f"there is no such network: choose {' or '.join(self.names)}")
        return self.chosen[CHOSEN[0]] if name == BY_PICTURE else name

    def _chosen(self, name: str, path: str | None, is_gt: bool) -> tuple[str, Path, list[str]]:
        """Name the network for an uploaded file, find the file, and say why it is that network if the file chose."""
        named, image = self._named(name), existing(path, NO_IMAGE)
        if name != BY_PICTURE:
            return named, image, []
        choice = self.sessions[named].choose(image, is_gt)
        word = next(word for word, one in SHIPPED.items() if one == choice.network)
        return self.chosen[word], image, [f"{choice}."]

    @contextmanager
    def _turn(self, request: gr.Request | None) -> Iterator[None]:
        """Wait for the visitor's turn; a mistake in the block becomes a line on the page."""
        with self._told():
            if request is None or request.client is None:
                yield
                return
            with self.turns.taken(Visitor(request.client.host, str(request.session_hash))):
                yield

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn a mistake into a line on the page, which does not tell where files lie."""
        try:
            yield
        except UserError as error:
            line = without_folder(str(error), self.folder)
        except FileNotFoundError:
            line = LOST
        except OSError as error:
            line = f"{error.strerror or 'the disk fails'}: try again later"
        except (MemoryError, RuntimeError) as error:
            if not is_shortage(error):
                raise
            line = SHORTAGE
        else:
            return
        raise gr.Error(line, print_exception=False) from None

    def _shown(self, answer: Answer, said: list[str], name: str, image: Path, before: Shown | None) -> tuple[Any, ...]:
        """Make the values of the first tab's components."""
        shown = keep(answer, name, self.folder)
        forget(before)
        titles = list(shown.pictures)
        figures = "\n".join(
            ["| figure | value |", "|---|---|", *(f"| {what} | {value} |" for what, value in answer.figures)]
        )
        height, width = answer.lq.rgb.shape[:2]
        large_height, large_width = answer.pictures[0][1].rgb.shape[:2]
        unfit = face_warning(self.sessions[name].network, self.sessions[name].name or name, height, width)
        sizes = f"{width}x{height} became {large_width}x{large_height}."
        return (
            " ".join([sizes, *said, *notes_on(image), *(f"{line}." for line in unfit), *answer.notes]),
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
        editor = {"background": str(edit.now), "layers": layers_of(painting), "composite": None}
        changes = len(edit.versions) - 1
        status = " ".join([*lines, f"Changes that can be taken back: {changes}."])
        return editor, (edit.before, edit.now), status, str(edit.now), edit


def painted(painting: dict[str, Any] | None, size: tuple[int, int]) -> np.ndarray:
    """Find what is painted on the layers of Gradio's editor, images or files: bool, of a size (H, W)."""
    mask = np.zeros(size, bool)
    for layer in layers_of(painting):
        image = layer if isinstance(layer, Image.Image) else read_layer(Path(layer))
        alpha = image.getchannel("A").resize((size[1], size[0]), Image.Resampling.NEAREST)
        mask |= np.asarray(alpha) > 0
    if not mask.any():
        raise UserError("nothing is painted: paint over the part that is to be drawn again")
    return mask


def layers_of(painting: dict[str, Any] | None) -> list[Image.Image | str]:
    """List the layers of Gradio's editor: images, or paths of files."""
    layers = (painting or {}).get("layers") or []
    return [layer["path"] if isinstance(layer, dict) else layer for layer in layers]


def read_layer(path: Path) -> Image.Image:
    """Read a layer that a browser has made; one without transparency is painted all over."""
    return open_image(read_bytes(path), path.name).convert("RGBA")


def existing(upload: dict[str, Any] | str | None, otherwise: str) -> Path:
    """Find the file of an upload, as Gradio describes it; refuse one that is not there."""
    path = upload.get("path") if isinstance(upload, dict) else upload
    if path is None:
        raise UserError(otherwise)
    return Path(path)


def up_to_date(edit: Edit | None) -> Edit:
    """Refuse a picture that is not there, or that a call before this one has changed."""
    if edit is None:
        raise UserError(NO_PICTURE)
    if not edit.now.exists():
        raise UserError(LOST)
    if not edit.is_newest:
        raise UserError("the picture has changed meanwhile: look at it, and click again")
    return edit


def checked(name: str, value: float, low: float, high: float) -> float:
    """Refuse what is no number of a range."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise UserError(f"{name} must be a number from {low:g} to {high:g}")
    return value


def checked_seed(value: float | None) -> int:
    """Refuse what is no seed; None is 0."""
    return int(checked("seed", value or 0, *SEEDS))
