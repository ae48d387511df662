"""Trainings and tests from beginning to end: what is logged, validated, and noted."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import re
import subprocess
import sys
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from srflow_plugin import locks
from srflow_plugin.cli.main import basicsr_command
from srflow_plugin.errors import UserError
from srflow_plugin.images.files import write_image
from srflow_plugin.options.files import load_options
from srflow_plugin.training import pipelines
from srflow_plugin.training.pipelines import Notes, Training, train_pipeline
from srflow_plugin.training.resume import read_state
from srflow_plugin.training.setup import load_run
from srflow_plugin.training.stop import StopRequest
from tests.helpers import WITHOUT_VALIDATION, noise_image, train, untrained_network

WITHOUT_BOARD = "logger.use_tb_logger=false"


def test_best_metrics_are_remembered_and_validation_is_not_repeated(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("train:total_iter=4", "val:save_img=false") == 0
    assert capsys.readouterr().err.count("Validation held_out") == 2
    state = read_state(Path("experiments/tiny/training_states/4.state"))
    assert state["best_metric_results"]["held_out"]["psnr_tau0"]["iter"] == 2
    assert train("train:total_iter=5", "val:save_img=false", "--auto_resume") == 0
    output = capsys.readouterr().err
    # of iteration 4, which the state was written before, and at the end
    assert output.count("Validation held_out") == 2
    assert "iter:       4" not in output and "iter:       5" in output


def test_a_training_is_an_object_that_others_can_step(workplace: Path) -> None:
    run = load_run("tiny.yml", is_train=True, force=[WITHOUT_BOARD, "train.total_iter=5"])
    training = Training(run, StopRequest())
    numbers = []
    for data in training.batches():
        training.step(data)
        numbers.append((training.progress.iteration, training.progress.samples, training.epoch))
    assert numbers == [(1, 2, 0), (2, 4, 0), (3, 6, 0), (4, 8, 0), (5, 10, 0)]  # an epoch is 3 images, ten times
    assert not list(Path("experiments/tiny/models").iterdir())
    training.finish()
    assert {path.name for path in Path("experiments/tiny/models").iterdir()} == {"net_g_latest.pth"}
    assert training.model.best_metric_results["held_out"]["psnr_tau0"]["iter"] == 5


def test_a_bad_image_ends_the_processes_that_read(workplace: Path) -> None:
    for name in ("HR", "LR"):
        (workplace / name).mkdir()
        write_image(workplace / name / "a.png", noise_image(32, 32))
    data = ("dataroot_gt=HR", "dataroot_lq=LR", "io_backend:type=disk", "prepare=~", "num_worker_per_gpu=1")
    run = load_run("tiny.yml", is_train=True, force=[WITHOUT_BOARD, *(f"datasets:train:{key}" for key in data)])
    with pytest.raises(UserError, match=r"is 32x32 and .* 32x32: not 4 times") as told:
        train_pipeline(run)
    # Its traceback keeps the iterator, as that of a command does, which would wait for them at its end.
    assert told.tb is not None and multiprocessing.active_children() == []


@pytest.mark.parametrize("model", ["SRFlowModel", "SRModel"])
def test_the_time_that_is_left_ends_at_none(
    model: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if model == "SRModel":
        as_sr_model()
    monkeypatch.setattr("basicsr.utils.logger.time", SimpleNamespace(time=count(0, 100).__next__))
    assert train("train:total_iter=3", WITHOUT_VALIDATION, "logger:print_freq=1") == 0
    left = re.findall(r"iter: +(\d+),.*eta: ([^,]+),", capsys.readouterr().err)
    assert left[-1] == ("3", "0:00:00") and left[0][1] not in ("0:00:00", "-1 day")
    assert train("train:total_iter=5", WITHOUT_VALIDATION, "logger:print_freq=1", "--auto_resume") == 0
    left = re.findall(r"iter: +(\d+),.*eta: ([^,]+),", capsys.readouterr().err)
    assert left[-1] == ("5", "0:00:00") and left[0][1] not in ("0:00:00", "-1 day")


@pytest.mark.slow
def test_the_log_tells_of_images_and_epochs(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("val=none", "train:total_iter=40", "logger:print_freq=15", "logger:save_checkpoint_freq=100") == 0
    output = capsys.readouterr().err
    for line in (
        "Number of train images: 3",
        "Dataset enlarge ratio: 10",
        "Batch size per gpu: 2",
        "World size (gpu number): 1",
        "Require iter number per epoch: 15",
        "Total epochs: 3; iters: 40.",
        "Start training from epoch: 0, iter: 0",
        "[epoch:  1, iter:      15,",
        "[epoch:  2, iter:      30,",
        "Save the latest model.",
    ):
        assert line in output, line
    assert "iter:      16" not in output


def test_a_file_and_its_folders_are_kept(workplace: Path) -> None:
    run = load_run("tiny.yml", is_train=True, force=["val.save_img=false"], root=workplace / "at")
    assert train_pipeline(run) == 0
    experiment = workplace / "at" / "experiments" / "tiny"
    assert {path.name for path in experiment.iterdir()} >= {"tiny.yml", "models", "training_states", "visualization"}
    assert list((workplace / "at" / "tb_logger" / "tiny").iterdir()) and not Path("experiments").exists()


def test_a_test_goes_through_all_data_sets(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    untrained_network("net.pth")
    test = ["train=none", "path.pretrain_network_g=net.pth", "val.temperature=0"]
    run = load_run("tiny.yml", is_train=False, force=test)
    assert pipelines.test_pipeline(run) == 0
    output = capsys.readouterr().err
    assert "Testing noise..." in output and "Testing held_out..." in output
    pictures = Path("results/tiny/visualization")
    assert {path.name for path in (pictures / "held_out").iterdir()} == {
        "0_tiny.png",
        "0_tiny_bicubic.png",
        "0_tiny_grid.png",
    }
    assert len(list((pictures / "noise").iterdir())) == 3 * 3


def test_a_working_folder_that_cannot_be_written_is_named(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("experiments").write_text("a file where a folder should be")
    with pytest.raises(SystemExit) as stop:
        train()
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "experiments" in last and "choose a working folder that can be written" in last


def test_what_a_class_says_about_its_options_is_one_line(workplace: Path) -> None:
    run = load_run("tiny.yml", is_train=True, force=[WITHOUT_BOARD])
    run.opt["train"]["scheduler"] = {"type": "CosineAnnealingRestartLR", "periods": [1, 2], "restart_weights": [1]}
    with pytest.raises(UserError, match=r"^the model cannot be built: periods and restart_weights"):
        train_pipeline(run)


def test_each_note_is_logged_once_and_all_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    notes = Notes(logging.getLogger("notes"))
    notes.summarise()
    for _ in range(3):
        notes.add(["a is grey", "", "b is grey"])
    notes.add(["\n".join(f"{number} is grey" for number in range(pipelines.NOTES_IN_LOG))])
    notes.summarise()
    messages = [record.message for record in caplog.records]
    assert messages[:2] == ["a is grey", "b is grey"] and len(messages) == pipelines.NOTES_IN_LOG + 1
    assert messages[-1] == "26 images were skipped or converted, 22 different."


# -- two runs of one name, and runs that fail --------------------------------------------------------------------------


def test_a_run_that_fails_before_its_first_step_moves_nothing(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(WITHOUT_VALIDATION) == 0
    before = sorted(Path("experiments").rglob("*"))
    for image in Path("images/train").iterdir():
        image.write_bytes(image.read_bytes()[:100])
    disk = [f"datasets:train:dataroot_{kind}=images/train" for kind in ("gt", "lq")]
    with pytest.raises(SystemExit) as stop:
        train(WITHOUT_VALIDATION, *disk, "datasets:train:io_backend:type=disk", "datasets:train:gt_size=8")
    assert stop.value.code == 2 and "is truncated" in capsys.readouterr().err
    assert sorted(Path("experiments").rglob("*")) == before


def test_the_second_run_of_a_name_is_refused_and_the_first_named(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.3)
    holding = "import time; from srflow_plugin.training.setup import load_run; from pathlib import Path\n"
    holding += "run = load_run('tiny.yml', is_train=True); print('held', flush=True); time.sleep(100)"
    with subprocess.Popen([sys.executable, "-c", holding], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"the name tiny is in use: process {holder.pid} on "):
            load_run("tiny.yml", is_train=True)
        holder.kill()
    load_run("tiny.yml", is_train=True).lock.close()
    assert list(Path("experiments").iterdir()) == []


def test_the_log_names_networks_in_a_line_and_rates_once(workplace: Path) -> None:
    assert train(WITHOUT_VALIDATION) == 0
    (log,) = Path("experiments/tiny").glob("train_tiny_*.log")
    lines = log.read_text().splitlines()
    assert any(re.search(r"Network SRFlowNet: [\d,]+ parameters\.$", line) for line in lines)
    assert not any("Conv2d" in line for line in lines)
    (first, *_) = [line for line in lines if "iter:       1" in line]
    assert first.count("lr") == 1


# -- validation --------------------------------------------------------------------------------------------------------

LONELY = "datasets:val_2={name: lonely, type: SingleImageDataset, dataroot_lq: data/val_LRx4.lmdb, "
LONELY += "io_backend: {type: lmdb}}"
SECOND = "datasets:val_2={name: second, type: PairedImageDataset, dataroot_gt: data/val_HR.lmdb, "
SECOND += "dataroot_lq: data/val_LRx4.lmdb, io_backend: {type: lmdb}}"


def as_sr_model() -> None:
    """Turn tiny.yml into a file for BasicSR's own SRModel."""
    opt = load_options(Path("tiny.yml"))
    opt["model_type"] = "SRModel"
    opt["network_g"] = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1}
    opt["train"] = {key: opt["train"][key] for key in ("optim_g", "scheduler", "total_iter")}
    opt["train"]["pixel_opt"] = {"type": "L1Loss"}
    opt["val"] = {key: opt["val"][key] for key in ("val_freq", "save_img", "metrics")}
    Path("tiny.yml").write_text(yaml.safe_dump(opt))


@pytest.mark.parametrize("model", ["SRFlowModel", "SRModel"])
def test_sets_with_and_without_ground_truth_mix(
    model: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if model == "SRModel":
        as_sr_model()
    assert train(LONELY) == 0
    log = capsys.readouterr().err
    assert "lonely has no ground truth (dataroot_gt): " in log and "psnr" in log
    best = read_state(Path("experiments/tiny/training_states/2.state"))["best_metric_results"]
    assert set(best) <= {"held_out", "lonely"}
    assert train(LONELY, "train:total_iter=4", "--auto_resume") == 0
    best = read_state(Path("experiments/tiny/training_states/4.state"))["best_metric_results"]
    assert best["held_out"] and not best.get("lonely")


@pytest.mark.parametrize("model", ["SRFlowModel", "SRModel"])
def test_each_of_several_sets_has_a_folder_of_pictures(model: str, workplace: Path) -> None:
    if model == "SRModel":
        as_sr_model()
    assert train(SECOND) == 0
    pictures = {str(path.parent.parent.name) for path in Path("experiments/tiny/visualization").rglob("*.png")}
    assert pictures == {"held_out", "second"}
    assert train("name=alone") == 0
    assert [path.name for path in Path("experiments/alone/visualization").iterdir()] == ["0"]  # as BasicSR has it


def test_two_sets_of_one_name_are_refused(workplace: Path) -> None:
    with pytest.raises(UserError, match=r"datasets\.val_2\.name: 'held_out' is datasets\.val's; give each a name"):
        load_run("tiny.yml", is_train=True, force=[SECOND.replace("name: second", "name: held_out")])


def test_a_metric_that_an_image_is_too_small_for_is_known_before_the_first_step(workplace: Path) -> None:
    niqe = "val:metrics:niqe={type: calculate_niqe, crop_border: 4}"
    told = r"val\.metrics\.niqe cannot be computed on held_out: its image 0 is 52x44 .*; it needs about 208x208"
    with pytest.raises(UserError, match=told):
        load_run("tiny.yml", is_train=True, force=[niqe])
    assert not Path("experiments").exists()


def test_a_validation_that_fails_loses_nothing(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> None:
        raise NotImplementedError("saving image is not supported during training.")

    monkeypatch.setattr(pipelines, "validate_together", fail)
    with pytest.raises(SystemExit) as stop:
        train("logger:save_checkpoint_freq=1000", "train:total_iter=7")
    last = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 1 and "the validation after iteration 2 failed: saving image is not supp" in last
    assert [path.name for path in Path("experiments/tiny/training_states").iterdir()] == ["2.state"]


@pytest.mark.parametrize("fault", [OSError("Failed in writing images."), OSError(errno.ENOSPC, "No space left", "x")])
def test_a_model_of_basicsr_trains_on_where_its_pictures_cannot_be_written(
    fault: OSError, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object, **settings: object) -> None:
        raise fault

    sections = yaml.safe_load(Path("tiny.yml").read_text())
    network = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "num_grow_ch": 4}
    sections.update(model_type="SRModel", network_g=network)
    adam = {key: sections["train"][key] for key in ("optim_g", "scheduler")}
    sections["train"] = {**adam, "total_iter": 4, "pixel_opt": {"type": "L1Loss"}}
    sections["val"] = {"val_freq": 2, "save_img": True, "metrics": None, "suffix": None}
    Path("tiny.yml").write_text(yaml.safe_dump(sections))
    monkeypatch.setattr("basicsr.models.sr_model.imwrite", fail)
    assert train() == 0
    assert capsys.readouterr().err.count("Pictures of held_out could not be written: is the disk full?") == 2
    tested = {**sections, "path": {"pretrain_network_g": "experiments/tiny/models/net_g_4.pth"}}
    tested["datasets"] = {"test": sections["datasets"]["val"]}
    Path("test.yml").write_text(yaml.safe_dump({key: tested[key] for key in tested if key not in ("train", "logger")}))
    with pytest.raises(SystemExit) as stop:
        basicsr_command(["test", "-opt", "test.yml"])
    assert stop.value.code == 1 and "stopped: Pictures of held_out could" in capsys.readouterr().err


@pytest.mark.parametrize("is_train", [True, False])
def test_no_other_key_of_path_makes_a_folder(tmp_path: Path, is_train: bool) -> None:
    names = ("models", "training_states", "log", "visualization", "experiments_root" if is_train else "results_root")
    paths = {name: str(tmp_path / "run" / name) for name in names}
    others = {"evil_key": str(tmp_path / "evil"), "strict_load_d": True, "theirs": 5, "pretrain_network_d": "d.pth"}
    logger = {"use_tb_logger": False}
    opt = {"name": "a", "rank": 0, "is_train": is_train, "path": {**others, **paths}, "logger": logger}
    pipelines._make_folders(opt, None, is_new=True)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == set(names)
    assert opt["path"] == {**others, **paths}


def test_a_command_line_stays_in_its_comment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "a.yml").write_text("name: é\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["basicsr", "x=1\nname: forged\x85y: 2\x1b[2J"])
    pipelines._copy_option_file(tmp_path / "a.yml", tmp_path / "run")
    copy = tmp_path / "run" / "a.yml"
    assert load_options(copy) == {"name": "é"} and "\n# CMD:\n# basicsr x=1\\nname: forged" in copy.read_text("utf-8")
