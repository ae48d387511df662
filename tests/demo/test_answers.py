"""Functions behind the page's buttons, without a page."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from srflow_plugin.applications.upscale import find_network
from srflow_plugin.checkpoints.shipped import BY_NAME
from srflow_plugin.demo.answers import Answers, checked, checked_seed, painted
from srflow_plugin.demo.session import Session, example
from srflow_plugin.demo.visits import Edit, Shown
from srflow_plugin.errors import UserError
from srflow_plugin.images.files import read_image
from tests.helpers import noisy


@pytest.fixture
def answers(tmp_path: Path) -> Answers:
    (tmp_path / "visits").mkdir()
    return Answers({"x4": Session(find_network(4, None, "cpu"), max_pixels=400)}, tmp_path / "visits")


@pytest.fixture
def upload(tmp_path: Path) -> str:
    example("cat").crop((0, 0, 15, 12)).save(tmp_path / "cat.png")
    return str(tmp_path / "cat.png")


def painting(*areas: tuple[slice, slice], size: tuple[int, int] = (48, 60)) -> dict[str, Any]:
    """Make what Gradio's editor gives: a layer painted in these places."""
    layer = np.zeros((*size, 4), np.uint8)
    for area in areas:
        layer[area] = (255, 0, 200, 176)
    return {"background": None, "layers": [Image.fromarray(layer)], "composite": None}


def shown_for(answers: Answers, upload: str, before: Shown | None = None) -> Shown:
    *_, shown = answers.upscale("x4", upload, False, 0.8, 2, 0, before)
    assert isinstance(shown, Shown)
    return shown


def edit_of(answered: tuple[Any, ...]) -> Edit:
    assert isinstance(answered[-1], Edit)
    return answered[-1]


def test_what_is_shown_are_the_files_to_download(answers: Answers, upload: str) -> None:
    note, gallery, _, (bicubic, sample), _, figures, *_, archive, shown = answers.upscale(
        "x4", upload, False, 0.8, 2, 0, None
    )
    assert note == "15x12 became 60x48." and figures.startswith("| figure | value |\n|---|---|\n| LR-PSNR of the")
    assert [title for _, title in gallery] == ["bicubic", "sample 0", "sample 1"]
    assert (bicubic, sample) == (gallery[0][0], gallery[1][0]) and archive == str(shown.archive)
    assert answers.choose("sample 1", shown) == (bicubic, gallery[2][0])
    assert answers.choose("sample 1", None) is None
    again = shown_for(answers, upload, shown)
    assert not shown.folder.exists() and again.folder.exists()  # what is not shown any more is not kept


def test_drawn_again_and_taken_back_as_often_as_wished(answers: Answers, upload: str) -> None:
    shown = shown_for(answers, upload)
    edit = edit_of(answers.begin("sample 1", shown, None))
    first = read_image(edit.now)
    assert np.array_equal(first, read_image(shown.pictures["sample 1"]))
    area = (slice(10, 30), slice(20, 50))
    pictures = [first]
    for work, value in ((answers.draw, (0.8, 1)), (answers.draw, (0.8, 2)), (answers.strengthen, (0.5,))):
        editor, (before, after), status, download, edit = work(edit, painting(area), *value)
        pictures.append(read_image(edit.now))
        changed = (pictures[-1] != pictures[-2]).any(2)
        assert changed[area].mean() > 0.5 and changed.sum() == changed[area].sum()  # the rest to the bit
        assert status.startswith(f"{changed.sum()} of {48 * 60} pixels changed; all others are the same to the bit. ")
        assert str(edit.now) == download == editor["background"] and (before, after) == edit.versions[-2:]
        assert len(editor["layers"]) == 1  # what is painted stays
    for picture in pictures[-2::-1]:
        *_, edit = answers.undo(edit, painting(area))
        assert np.array_equal(read_image(edit.now), picture)
    _, _, status, _, edit = answers.undo(edit, None)
    assert status == "There is nothing to take back. Changes that can be taken back: 0."
    again = read_image(edit_of(answers.draw(edit, painting(area), 0.8, 1)).now)
    assert np.array_equal(again, pictures[1])  # the same seed


def test_a_picture_of_ones_own(answers: Answers, tmp_path: Path) -> None:
    pixels = np.dstack([np.asarray(example("cat").crop((0, 0, 61, 50))), np.full((50, 61), 99, np.uint8)])
    Image.fromarray(pixels).save(tmp_path / "own.png")
    edit = edit_of(answers.begin_own("x4", str(tmp_path / "own.png"), None))
    edit = edit_of(answers.draw(edit, painting((slice(0, 50), slice(40, 61)), size=(50, 61)), 0.8, 0))
    drawn = np.asarray(Image.open(edit.now))
    assert np.array_equal(drawn[:, :40], pixels[:, :40]) and np.array_equal(drawn[48:], pixels[48:])
    assert (drawn[:48, 40:60, :3] != pixels[:48, 40:60, :3]).any() and (drawn[..., 3] == 99).all()


def test_visitors_share_nothing(answers: Answers, upload: str) -> None:
    one, other = shown_for(answers, upload), shown_for(answers, upload)
    first = edit_of(answers.begin("sample 0", one, None))
    second = edit_of(answers.begin("sample 0", other, None))
    before = {path: path.read_bytes() for path in answers.folder.rglob("*.png")}
    answers.draw(first, painting((slice(0, 20), slice(0, 20))), 0.8, 1)
    assert {path: path.read_bytes() for path in before} == before
    assert len({one.folder, other.folder, first.folder, second.folder}) == 4
    answers.begin("sample 1", one, first)
    assert not first.folder.exists() and second.now.exists()


def test_mistakes_become_lines_on_the_page(answers: Answers, upload: str, tmp_path: Path) -> None:
    edit = edit_of(answers.begin("sample 0", shown_for(answers, upload), None))
    Path(tmp_path / "text.png").write_text("text")
    mistakes: dict[str, Callable[[], Any]] = {
        "an image is missing": lambda: answers.upscale("x4", None, False, 0.8, 2, 0, None),
        "text.png is not an image": lambda: answers.compare("x4", str(tmp_path / "text.png"), False, 0, None),
        "choose one first": lambda: answers.transfer("x4", upload, None),
        "there is no picture yet: super": lambda: answers.draw(None, None, 0.8, 0),
        "super-resolve an image first": lambda: answers.undo(None, None),
        "choose": lambda: answers.begin(None, None, None),
        "nothing is painted": lambda: answers.draw(edit, painting(), 0.8, 0),
        "paint over": lambda: answers.strengthen(edit, None, 0.5),
        "image is missing": lambda: answers.begin_own("x4", None, edit),
    }
    for message, work in mistakes.items():
        with pytest.raises(gr.Error, match=message):
            work()
    assert edit.now.exists()


def test_a_picture_that_another_call_has_changed(answers: Answers, upload: str) -> None:
    edit = edit_of(answers.begin("sample 1", shown_for(answers, upload), None))
    area = painting((slice(10, 30), slice(20, 50)))
    newer = edit_of(answers.draw(edit, area, 0.8, 1))
    kept = newer.now.read_bytes()
    with pytest.raises(gr.Error, match="has changed meanwhile"):  # clicked before the answer was there
        answers.draw(edit, area, 0.8, 2)
    with pytest.raises(gr.Error, match="has changed meanwhile"):
        answers.undo(edit, area)
    assert newer.now.read_bytes() == kept
    undone = edit_of(answers.undo(newer, area))
    with pytest.raises(gr.Error, match=r"has changed|not there any more"):
        answers.draw(newer, area, 0.8, 2)
    edit_of(answers.draw(undone, area, 0.8, 2))


def test_pictures_that_are_deleted_meanwhile(answers: Answers, upload: str) -> None:
    shown = shown_for(answers, upload)
    edit = edit_of(answers.begin("sample 0", shown, None))
    area = painting((slice(0, 20), slice(0, 20)))
    gone: list[Callable[[], Any]] = [
        lambda: answers.begin("sample 0", shown, None),
        lambda: answers.draw(edit, area, 0.8, 0),
        lambda: answers.undo(edit, area),
    ]
    for folder in (shown.folder, edit.folder):
        shutil.rmtree(folder)
    for work in gone:
        with pytest.raises(gr.Error, match="is not there any more: upload the image"):
            work()


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device", "/a/b"), MemoryError(), UserError("/v/a.png")]
)
def test_lines_instead_of_tracebacks(answers: Answers, upload: str, error: Exception, monkeypatch: Any) -> None:
    monkeypatch.setattr(answers.sessions["x4"], "upscale", Mock(side_effect=error))
    with pytest.raises(gr.Error) as told:
        answers.upscale("x4", upload, False, 0.8, 2, 0, None)
    lines = ("No space left on device: try again later", "there is not enough memory", "/v/a.png")
    assert told.value.message.startswith(lines) and not told.value.print_exception


def test_calls_have_their_turns(answers: Answers, upload: str) -> None:
    request = Mock(spec=gr.Request, client=Mock(host="127.0.0.1"), session_hash="abc")
    with pytest.raises(gr.Error, match="nobody waits for this answer"):
        answers.upscale("x4", upload, False, 0.8, 1, 0, None, request)
    with answers.turns.listening("abc"):
        assert answers.upscale("x4", upload, False, 0.8, 1, 0, None, request)


@pytest.fixture
def choosing(tmp_path: Path, answers: Answers) -> Answers:
    """Answers of the networks of the package."""
    sessions = {name: Session(find_network(None, name, "cpu"), 1600, name) for name in BY_NAME}
    return Answers(sessions, answers.folder)


@pytest.mark.parametrize(
    ("change", "is_gt", "line", "name"),
    [
        (lambda image: image, False, "neither JPEG nor noise found: srflow_x4, the network for clean", "srflow_x4"),
        (lambda image: noisy(image, 0), False, "grey levels: srflow_x4_real, the network for real", "srflow_x4_real"),
        (lambda image: noisy(image, 0, 3), True, "srflow_x4, the network for clean", "srflow_x4"),  # its LR image
    ],
)
def test_the_picture_chooses(
    choosing: Answers, tmp_path: Path, change: Callable[..., Any], is_gt: bool, line: str, name: str
) -> None:
    image = np.asarray(example("cat").resize((160, 160) if is_gt else (40, 40)))
    Image.fromarray(change(image)).save(tmp_path / "a.png")
    note, *_, shown = choosing.upscale("Auto", str(tmp_path / "a.png"), is_gt, 0, 1, 0, None)
    assert line in note and shown.network == name
    note, *_, shown = choosing.upscale("srflow_x4", str(tmp_path / "a.png"), is_gt, 0, 1, 0, shown)
    assert "network for" not in note and shown.network == "srflow_x4"


def test_auto_is_there_where_there_is_a_choice(choosing: Answers, answers: Answers, upload: str) -> None:
    assert choosing.names == ["Auto", *BY_NAME] and answers.names == ["x4"]
    with pytest.raises(gr.Error, match="no such network: choose x4"):
        answers.upscale("Auto", upload, False, 0, 1, 0, None)
    assert edit_of(choosing.begin_own("Auto", upload, None)).network == "srflow_x4"
    assert choosing.transfer("Auto", upload, upload).size == (12, 12)


def test_numbers_are_checked() -> None:
    for value in (math.nan, math.inf, -0.1, 1.3, "1", None, True, [1]):
        with pytest.raises(UserError, match=r"temperature must be a number from 0 to 1\.2"):
            checked("temperature", value, 0, 1.2)  # type: ignore[arg-type]
    assert checked("temperature", 1.2, 0, 1.2) == 1.2
    assert checked_seed(None) == 0 and checked_seed(-(2**63)) == -(2**63) and checked_seed(7.0) == 7
    for seed in (2**63, 2.0**63, math.nan, math.inf):
        with pytest.raises(UserError, match="seed must be a number"):
            checked_seed(seed)


def test_paintings_of_other_sizes_are_fitted() -> None:
    mask = painted(painting((slice(10, 20), slice(0, 30)), size=(24, 30)), (48, 60))
    assert mask.shape == (48, 60) and mask[20:40].all() and mask.sum() == 20 * 60
    with pytest.raises(UserError, match="nothing is painted"):
        painted({"layers": None}, (4, 4))


def test_paintings_in_files(tmp_path: Path) -> None:
    (layer,) = painting((slice(10, 20), slice(0, 30)), size=(24, 30))["layers"]
    layer.save(tmp_path / "layer.png")
    file = {"path": str(tmp_path / "layer.png")}
    assert painted({"layers": [file]}, (24, 30)).sum() == 10 * 30
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(UserError, match="is not an image"):
        painted({"layers": [file, {"path": str(tmp_path / "text.png")}]}, (24, 30))
