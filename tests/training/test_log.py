"""Logs: early lines reach the file, curves are shown where they can be, and a resumed run goes on in its own."""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
from io import StringIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from srflow_plugin.cli.main import basicsr_command
from srflow_plugin.errors import UserError
from srflow_plugin.training.log import Lines, RunLog, check_boards
from srflow_plugin.training.resume import read_state
from tests.helpers import WITHOUT_VALIDATION, train

OPT: dict[str, Any] = {"name": "a", "rank": 0, "logger": {"use_tb_logger": True, "wandb": {"project": "p"}}}


def test_early_lines_reach_the_file_and_later_ones_follow(tmp_path: Path, fresh_log: None) -> None:
    log = RunLog(OPT)
    log.logger.info("early")
    log.open(tmp_path / "a.log")
    log.logger.info("late")
    log.close()
    log.logger.info("after the end")
    assert [line.rpartition(": ")[2] for line in (tmp_path / "a.log").read_text().splitlines()] == ["early", "late"]
    assert not [handler for handler in log.logger.handlers if isinstance(handler, logging.FileHandler)]


FORGED = [
    "a\n2026-01-01 00:00:00,000 INFO: forged",
    "a\r2026-01-01 00:00:00,000 INFO: forged",
    "a\u20282026-01-01 00:00:00,000 INFO: forged",
    "a\x852026-01-01 00:00:00,000 INFO: forged",
    "a\x1b[2K\x1b[1A forged",
    "a\u202egnp.b",
    "a\n\tb\n\n  c",
]


@pytest.mark.parametrize("text", FORGED, ids=range(len(FORGED)))
def test_a_line_begins_with_a_time_and_others_with_a_blank(text: str, tmp_path: Path, fresh_log: None) -> None:
    log, screen = RunLog(OPT), StringIO()
    for handler in log.logger.handlers:
        if type(handler) is logging.StreamHandler:
            handler.setStream(screen)
    log.logger.warning(text)
    log.open(tmp_path / "a.log")
    log.logger.warning(text)
    log.close()
    for told in ((tmp_path / "a.log").read_text(), screen.getvalue()):
        lines = told.splitlines()
        assert sum(line[:1].isdigit() for line in lines) == 2 and told.replace("\n", "").replace("\t", "").isprintable()
        assert all(not line or line[0].isdigit() or line[0].isspace() for line in lines)


def test_a_formatter_changes_no_usual_line() -> None:
    record = logging.LogRecord("basicsr", logging.INFO, "", 0, "Training statistics:\n\tNumber: %d", (3,), None)
    assert Lines().format(record).partition("INFO: ")[2] == "Training statistics:\n\tNumber: 3"


def test_only_the_first_rank_has_a_file(tmp_path: Path, fresh_log: None) -> None:
    log = RunLog({**OPT, "rank": 1})
    log.open(tmp_path / "a.log")
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_what_shows_the_curves_is_missed_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="needs wandb: pip install wandb"):
        check_boards(OPT)
    with pytest.raises(UserError, match=r"set logger\.use_tb_logger: true"):
        check_boards({**OPT, "logger": {"wandb": {"project": "p"}}})
    check_boards({**OPT, "logger": {"wandb": {"project": None}}})
    check_boards({**OPT, "name": "debug_a"})


def test_a_resumed_run_goes_on_in_its_own_run_of_wandb(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[dict[str, Any]] = []

    def init(**settings: Any) -> SimpleNamespace:
        begun.append(settings)
        return SimpleNamespace(id=settings["id"] or "new", finish=lambda: begun.append({"finished": True}))

    wandb = ModuleType("wandb")
    vars(wandb).update(init=init, __spec__=SimpleNamespace(name="wandb"))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    board = ["logger:use_tb_logger=true", "logger:wandb:project=p", WITHOUT_VALIDATION]
    assert train(*board) == 0 and train(*board, "train:total_iter=4", "--auto_resume") == 0
    assert read_state(Path("experiments/tiny/training_states/4.state"))["wandb_id"] == "new"
    first, finished, again, _ = begun
    assert (first["id"], first["resume"], first["project"], finished) == (None, None, "p", {"finished": True})
    assert (again["id"], again["resume"], again["name"], again["sync_tensorboard"]) == ("new", "allow", "tiny", True)


def test_curves_that_cannot_be_written_end_no_training(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(writer: Any, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", full)
    hook = threading.excepthook
    assert basicsr_command(["train", "-opt", "tiny.yml", "--force_yml", "logger:use_tb_logger=true"]) == 0
    told = capfd.readouterr().err
    assert told.count("TensorBoard's curves could not be written: No space left on device. Training goes on") == 1
    assert "Traceback" not in told and threading.excepthook is hook
    assert Path("experiments/tiny/training_states/2.state").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is Linux's")
def test_a_log_that_cannot_be_written_is_told_once(fresh_log: None, capfd: pytest.CaptureFixture[str]) -> None:
    log = RunLog(OPT)
    log.logger.info("first")
    log.open(Path("/dev/full"))
    for _ in range(3):
        log.logger.warning("more")
    log.close()
    told = capfd.readouterr().err
    assert told.count("/dev/full could not be written: No space left on device. Training goes on.") == 1
    assert "Traceback" not in told and told.count("WARNING: more") == 3
