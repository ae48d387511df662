"""Boards beside TensorBoard: what is found in Trackio's database and in the offline folder of Weights & Biases."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from srflow_plugin.errors import UserError
from srflow_plugin.options.check import load_checked
from srflow_plugin.training.log import check_boards
from srflow_plugin.training.resume import read_state
from srflow_plugin.training.tracking import TrackioWriter
from tests.helpers import ROOT, WITHOUT_VALIDATION, run_python, train

OPT: dict[str, Any] = {"name": "a", "rank": 0, "logger": {"use_tb_logger": False, "trackio": {"project": "p"}}}
TWICE = """
from tests.helpers import train
boards = ["logger:use_tb_logger=true", "logger:wandb:project=p", "logger:trackio:project=q"]
assert train(*boards) == 0 and train(*boards, "train:total_iter=4", "--auto_resume") == 0
"""


class Run:
    """Trackio's run, which keeps what it is given."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.is_finished = False

    def log(self, row: dict[str, Any], step: int) -> None:
        self.rows.append((step, row))

    def finish(self) -> None:
        self.is_finished = True


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The runs of a stand-in for Trackio."""
    begun: list[Run] = []

    def init(**settings: Any) -> Run:
        begun.append(Run(**settings))
        return begun[-1]

    trackio = ModuleType("trackio")
    vars(trackio).update(init=init, Image=np.asarray, __spec__=SimpleNamespace(name="trackio"))
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    return begun


def test_an_iteration_is_a_row(runs: list[Run]) -> None:
    writer = TrackioWriter("p", "a", {"scale": 4}, goes_on=False)
    writer.add_scalar("l_nll", np.float64(2), 1)
    writer.add_scalar("grad_norm", 3, 1)
    writer.add_scalar("l_nll", 1.5, 2)
    writer.add_image("picture", np.full((2, 3, 3), 51, np.uint8), 2, dataformats="HWC")
    writer.add_image("other", np.full((3, 2, 3), 0.2), 2)
    writer.close()
    (run,) = runs
    (first, one), (second, other) = run.rows
    assert (first, one, second, run.is_finished) == (1, {"l_nll": 2.0, "grad_norm": 3.0}, 2, True)
    assert other["l_nll"] == 1.5
    for name in ("picture", "other"):
        assert other[name].shape == (2, 3, 3) and other[name].dtype == np.uint8 and (other[name] == 51).all()
    assert run.settings["resume"] == "never" and run.settings["config"] == {"scale": 4}


def test_a_resumed_training_goes_on_in_its_run_without_tensorboard(workplace: Path, runs: list[Run]) -> None:
    board = ["logger:trackio:project=p", WITHOUT_VALIDATION]
    assert train(*board) == 0 and train(*board, "train:total_iter=4", "--auto_resume") == 0
    first, again = runs
    assert (first.settings["resume"], again.settings["resume"]) == ("never", "allow")
    name = first.settings["name"]
    assert name.startswith("tiny_") and again.settings["name"] == name and again.settings["project"] == "p"
    assert read_state(Path("experiments/tiny/training_states/4.state"))["trackio_run"] == name
    assert [step for run in runs for step, _ in run.rows] == [1, 2, 3, 4]
    assert {"losses/l_nll", "lr_flow"} <= first.rows[0][1].keys()
    assert not Path("tb_logger").exists()


def test_a_fault_of_a_board_ends_no_training(
    workplace: Path, runs: list[Run], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(run: Run, row: dict[str, Any], step: int) -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(Run, "log", broken)
    assert train("logger:trackio:project=p", WITHOUT_VALIDATION) == 0
    told = capfd.readouterr().err
    assert told.count("Trackio's curves could not be written: database is locked. Training goes on") == 1
    assert Path("experiments/tiny/training_states/2.state").exists()


def test_a_debugged_training_shows_nothing(workplace: Path, runs: list[Run]) -> None:
    assert train("logger:trackio:project=p", "name=debug_tiny", WITHOUT_VALIDATION) == 0
    assert runs == []


def test_trackio_is_missed_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(UserError, match=r"logger\.trackio needs trackio: pip install trackio"):
        check_boards(OPT)
    check_boards({**OPT, "name": "debug_a"})
    check_boards({**OPT, "logger": {"trackio": {"project": None}}})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("logger:trackio:projekt=p", "logger.trackio.projekt is no option; did you mean project?"),
        ("logger:trackio:project=3", "logger.trackio.project: 3 is not"),
        ("logger:trackio:project=a/b", "logger.trackio.project: 'a/b' must be a plain name"),
        ("logger:trackio=p", "logger.trackio"),
    ],
)
def test_mistakes_in_the_section_are_one_line(change: str, text: str, workplace: Path) -> None:
    with pytest.raises(UserError) as refusal:
        load_checked(Path("tiny.yml"), [change])
    assert text in str(refusal.value)


@pytest.mark.slow
def test_what_is_found_after_a_run_and_a_resume(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tool in ("trackio", "wandb"):
        pytest.importorskip(tool, reason="it comes with the extra test")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(workplace / "trackio"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = run_python(TWICE)
    assert done.returncode == 0, done.stdout + done.stderr
    state = read_state(Path("experiments/tiny/training_states/4.state"))

    with sqlite3.connect("trackio/q.db") as database:
        found = database.execute("select run_name, run_id, step, metrics from metrics order by step").fetchall()
        configs = database.execute("select config from configs").fetchall()
    rows: dict[int, dict[str, Any]] = {}
    for *_, step, metrics in found:
        rows.setdefault(step, {}).update(json.loads(metrics))
    assert {name for name, *_ in found} == {state["trackio_run"]} and len({run for _, run, *_ in found}) == 1
    assert list(rows) == [1, 2, 3, 4] and all("losses/l_nll" in row for row in rows.values())
    for step in (2, 4):
        assert {"metrics/held_out/psnr_tau0", "held_out/0"} <= rows[step].keys()
        assert Path("trackio/media", rows[step]["held_out/0"]["file_path"]).is_file()
    assert json.loads(configs[0][0])["network_g"]["type"] == "SRFlowNet"

    folders = sorted(Path("wandb").glob("offline-run-*"))
    assert len(folders) == 2 and all(folder.name.endswith(state["wandb_id"]) for folder in folders)
    for folder in folders:
        written = (folder / f"run-{state['wandb_id']}.wandb").read_bytes()
        assert b"losses/l_nll" in written and list((folder / "files/media/images").glob("*.png"))
