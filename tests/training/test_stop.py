"""Signals: a run saves and stops between two iterations or images; the second signal acts at once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from srflow_plugin.data.checked import CheckedImages
from srflow_plugin.training.stop import StopBetweenImages, StopRequest, StopRequested
from tests.helpers import UNIX, WITHOUT_VALIDATION, assert_same_networks, train


@UNIX
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_request_is_noted_and_the_second_acts_at_once(number: signal.Signals, code: int) -> None:
    acted = []
    before = signal.signal(number, lambda *_: acted.append(number))
    try:
        with StopRequest() as stop:
            assert not stop.requested and stop.exit_code == 0 and str(stop) == "another process"
            os.kill(os.getpid(), number)
            assert (stop.requested, stop.exit_code, str(stop)) == (True, code, number.name) and acted == []
            os.kill(os.getpid(), number)
            assert acted == [number]
        os.kill(os.getpid(), number)
        assert acted == [number, number]
    finally:
        signal.signal(number, before)


def test_images_end_when_a_stop_is_asked_for() -> None:
    class Images(list[int]):
        opt = {"name": "images"}

    images: Any = Images([5, 6])
    stop = StopRequest()
    data = StopBetweenImages(images, stop)
    assert (data[1], len(data), data.opt) == (6, 2, Images.opt)
    stop.signal = signal.SIGTERM
    with pytest.raises(StopRequested):
        data[1]


@UNIX
@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_saves_and_stops(workplace: Path, number: signal.Signals, code: int) -> None:
    common = [WITHOUT_VALIDATION, "logger:save_checkpoint_freq=1000000"]
    changes = ["logger:use_tb_logger=false", *common, "name=part", "train:total_iter=1000000"]
    command = [sys.executable, "-m", "srflow_plugin", "train", "-opt", "tiny.yml", "--force_yml", *changes]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "iter:       3" in line:
            process.send_signal(number)
            break
    output = process.stderr.read()
    assert process.wait(timeout=60) == code, output
    assert f"Stopped by {number.name} after iteration" in output and "Traceback" not in output
    (state,) = Path("experiments/part/training_states").iterdir()
    last = int(state.stem)
    assert last >= 3
    assert train(*common, "name=part", f"train:total_iter={last + 1}", "--auto_resume") == 0
    assert train(*common, "name=whole", f"train:total_iter={last + 1}") == 0
    assert_same_networks("whole", "part")


@UNIX
def test_a_signal_ends_a_validation_between_two_images(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = CheckedImages.__getitem__

    def stopped(images: CheckedImages, index: int) -> Any:
        if images.opt["phase"] == "val":
            os.kill(os.getpid(), signal.SIGTERM)
        return read(images, index)

    for phase in ("HR", "LRx4"):  # a second data set, so that there is a next image
        shutil.copytree(f"data/val_{phase}.lmdb", f"data/more_{phase}.lmdb")
    monkeypatch.setattr(CheckedImages, "__getitem__", stopped)
    second = [
        "datasets:val_2:name=more",
        "datasets:val_2:type=PairedImageDataset",
        "datasets:val_2:io_backend:type=lmdb",
        "datasets:val_2:dataroot_gt=data/more_HR.lmdb",
        "datasets:val_2:dataroot_lq=data/more_LRx4.lmdb",
    ]
    assert train(*second, "logger:save_checkpoint_freq=1000", "train:total_iter=4") == 0
    assert "Stopped by SIGTERM after iteration 2" in capsys.readouterr().err
    assert Path("experiments/tiny/training_states/2.state").exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="groups of processes are POSIX's")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_to_the_whole_group_saves_although_images_are_read_by_others(
    workplace: Path, number: signal.Signals, code: int
) -> None:
    changes = ["logger:use_tb_logger=false", WITHOUT_VALIDATION, "logger:save_checkpoint_freq=1000000"]
    changes += [
        "train:total_iter=1000000",
        "datasets:train:num_worker_per_gpu=2",
        "datasets:train:batch_size_per_gpu=8",
    ]
    command = [sys.executable, "-m", "srflow_plugin", "train", "-opt", "tiny.yml", "--force_yml", *changes]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "iter:       3" in line:
            os.killpg(process.pid, number)
        if "which is saved" in line:
            saved = int(line.partition("after iteration ")[2].partition(",")[0])
    assert process.wait() == code
    assert [path.name for path in Path("experiments/tiny/training_states").iterdir()] == [f"{saved}.state"]
