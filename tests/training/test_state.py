"""Checkpoints: written whole or not at all, found again, deleted in order; a resumed run is the same run."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel

from srflow_plugin import SRFlowModel
from srflow_plugin.errors import UserError
from srflow_plugin.files import save_atomically
from srflow_plugin.options.schema import Section
from srflow_plugin.training import state
from srflow_plugin.training.state import Checkpoints, Progress, build_model, make_state, read_state
from tests.helpers import WITHOUT_VALIDATION, assert_same_networks, train, truncate

STATES = Path("experiments/tiny/training_states")
NETWORKS = Path("experiments/tiny/models")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- the model ---------------------------------------------------------------------------------------------------------


def test_no_method_of_basicsrs_classes_is_replaced(workplace: Path) -> None:
    classes = (BaseModel, SRModel, SRFlowModel)
    before = [dict(vars(kind)) for kind in classes]
    assert train(WITHOUT_VALIDATION) == 0
    assert [dict(vars(kind)) for kind in classes] == before
    assert BaseModel.save_network is before[0]["save_network"]


def test_the_model_is_of_the_registered_class_and_has_its_name(tiny_options: Section) -> None:
    before = str(tiny_options)
    model = build_model(tiny_options)
    assert isinstance(model, SRFlowModel) and type(model) is not SRFlowModel
    assert (type(model).__name__, type(model).__module__) == ("SRFlowModel", SRFlowModel.__module__)
    assert model.opt is not tiny_options and str(tiny_options) == before
    STATES.mkdir(parents=True)
    SRFlowModel(tiny_options).save_training_state(0, 2)  # BasicSR's own, for who trains without this package's pipeline
    assert names(STATES) == ["2.state"]
    model.save_training_state(0, 4)
    assert names(STATES) == ["2.state"]


def test_networks_are_saved_as_basicsr_names_them(tiny_options: Section) -> None:
    model = build_model(tiny_options)
    NETWORKS.mkdir(parents=True)
    model.save(0, 7)
    model.save_network(model.net_g, "net_alone", "latest", param_key="weights")
    assert names(NETWORKS) == ["net_alone_latest.pth", "net_g_7.pth"]
    both = torch.load(NETWORKS / "net_g_7.pth", weights_only=True)
    alone = torch.load(NETWORKS / "net_alone_latest.pth", weights_only=True)
    assert both.keys() == {"params", "params_ema"} and alone.keys() == {"weights"}
    for name, value in model.net_g.state_dict().items():
        assert torch.equal(both["params"][name], value) and torch.equal(alone["weights"][name], value)
    model.opt["rank"] = 1  # only one process writes
    model.save(0, 8)
    assert len(names(NETWORKS)) == 2


def test_a_state_has_what_a_run_needs(tiny_options: Section) -> None:
    model = build_model(tiny_options)
    model.faults = 3
    made = make_state(model, 2, Progress(iteration=5, samples=10, seed=7))
    assert {key: made[key] for key in ("epoch", "iter", "samples", "manual_seed", "skipped_steps")} == {
        "epoch": 2,
        "iter": 5,
        "samples": 10,
        "manual_seed": 7,
        "skipped_steps": 3,
    }
    assert made.keys() == state.STATE_KEYS.keys()
    STATES.mkdir(parents=True)
    torch.save(made, STATES / "5.state")
    again = build_model(tiny_options)
    state.resume(again, read_state(STATES / "5.state"), STATES / "5.state")
    assert again.faults == 3
    with pytest.raises(UserError, match="is not of this model and its options"):
        state.resume(again, {**made, "optimizers": []}, STATES / "5.state")


def test_progress_is_taken_up() -> None:
    assert Progress.of(None, seed=3, batch_size=2) == Progress(iteration=0, samples=0, seed=3)
    of_basicsr = {"epoch": 1, "iter": 5, "optimizers": [], "schedulers": []}
    assert Progress.of(of_basicsr, seed=3, batch_size=2) == Progress(iteration=5, samples=10, seed=3)
    own = {**of_basicsr, "samples": 12, "manual_seed": 9}  # whatever the option file says now
    assert Progress.of(own, seed=3, batch_size=2) == Progress(iteration=5, samples=12, seed=9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iter": "5"}, "iter is '5'"),
        ({"epoch": None}, "epoch is None"),
        ({"samples": -1}, "samples is -1"),
        ({"optimizers": {}}, "optimizers is {}"),
        ({"best_metric_results": None}, "best_metric_results is None"),
    ],
)
def test_what_is_not_a_state_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "5.state"
    whole = {"epoch": 1, "iter": 5, "optimizers": [], "schedulers": []}
    torch.save(whole, path)
    assert read_state(path) == whole
    torch.save({**whole, **change}, path)
    with pytest.raises(UserError, match=rf"^path\.resume_state: .*5\.state is not a training state: {message}$"):
        read_state(path)


# -- resume ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_resumed_within_an_epoch_is_the_same_run(workplace: Path) -> None:
    common = [WITHOUT_VALIDATION, "datasets:train:num_worker_per_gpu=1", "train:freeze_encoder_iters=3"]
    assert train(*common, "name=whole", "train:total_iter=7") == 0
    assert train(*common, "name=part", "train:total_iter=4") == 0
    assert train(*common, "name=part", "train:total_iter=7", "--auto_resume") == 0
    assert_same_networks("whole", "part")
    states = [read_state(Path(f"experiments/{name}/training_states/6.state")) for name in ("whole", "part")]
    assert states[0]["samples"] == states[1]["samples"] == 12
    assert str(states[0]["optimizers"]) == str(states[1]["optimizers"])


def test_a_model_of_basicsr_resumes_as_well(workplace: Path) -> None:
    opt = yaml.safe_load(Path("tiny.yml").read_text())
    opt["model_type"] = "SRModel"
    opt["network_g"] = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1}
    opt["train"] = {key: opt["train"][key] for key in ("optim_g", "scheduler", "ema_decay")}
    opt["train"]["optim_g"]["lr"] = 1e-3  # BasicSR's YAML reads 1e-3 as text
    opt["train"]["pixel_opt"] = {"type": "L1Loss"}
    opt["val"] = None
    Path("tiny.yml").write_text(yaml.safe_dump(opt))
    assert train("name=whole", "train:total_iter=6") == 0
    assert train("name=part", "train:total_iter=4") == 0
    assert train("name=part", "train:total_iter=6", "--auto_resume") == 0
    assert_same_networks("whole", "part")


@pytest.mark.slow
def test_a_state_finds_its_networks_from_any_folder(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(WITHOUT_VALIDATION, "name=whole", "train:total_iter=4") == 0
    assert train(WITHOUT_VALIDATION, "name=part", "train:total_iter=2") == 0
    elsewhere = workplace / "elsewhere"
    elsewhere.mkdir()
    shutil.copy("tiny.yml", elsewhere)
    monkeypatch.chdir(elsewhere)
    (elsewhere / "data").symlink_to(workplace / "data")
    at = workplace / "experiments" / "part" / "training_states" / "2.state"
    assert train(WITHOUT_VALIDATION, "name=part", "train:total_iter=4", f"path:resume_state={at}") == 0
    shutil.copytree(workplace / "experiments" / "whole", elsewhere / "experiments" / "whole")
    assert_same_networks("whole", "part")


# -- what the option file says otherwise when it goes on ---------------------------------------------------------------

STEPS = [WITHOUT_VALIDATION, "train:total_iter=4"]
LONGER = [WITHOUT_VALIDATION, "train:total_iter=8"]


def rates(capsys: pytest.CaptureFixture[str]) -> list[tuple[float, float]]:
    """Rates of flow and encoder in each line of the log."""
    lines = capsys.readouterr().err.splitlines()
    found = [re.search(r"lr_flow: (\S+) lr_encoder: (\S+)", line) for line in lines]
    return [(float(match[1]), float(match[2])) for match in found if match]


def test_changed_rates_and_schedules_hold_from_the_resume_on(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*STEPS, "train.scheduler.milestones=[100]") == 0
    assert rates(capsys) == [(1e-3, 1e-3)] * 4
    changed = ["lr=1e-5", "lr_encoder=1e-6", "weight_decay=0.1"]
    changes = [f"train.optim_g.{change}" for change in changed]
    assert train(*LONGER, "train.scheduler.milestones=[5, 7]", *changes, "--auto_resume") == 0
    out = capsys.readouterr()
    found = [re.search(r"lr_flow: (\S+) lr_encoder: (\S+)", line) for line in out.err.splitlines()]
    assert [(float(match[1]), float(match[2])) for match in found if match] == [
        (1e-5, 1e-6),
        (5e-6, 5e-7),
        (5e-6, 5e-7),
        (2.5e-6, 2.5e-7),
    ]
    assert "flow lr 0.001 -> 1e-05" in out.err and "encoder weight_decay 0 -> 0.1" in out.err
    state = read_state(STATES / "8.state")
    assert [group["weight_decay"] for group in state["optimizers"][0]["param_groups"]] == [0.1, 0.1]


def test_a_changed_schedule_is_where_it_would_be_from_the_start(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler = "train.scheduler={type: CosineAnnealingRestartLR, periods: [5, 5], restart_weights: [1, 0.5]}"
    assert train(*LONGER, scheduler, "name=whole") == 0
    whole = rates(capsys)
    assert train(*STEPS, scheduler.replace("[5, 5]", "[6, 6]")) == 0
    capsys.readouterr()
    assert train(*LONGER, scheduler, "--auto_resume") == 0
    assert rates(capsys) == whole[4:]


KINDS = [
    "train.scheduler={type: CosineAnnealingRestartLR, periods: [10], restart_weights: [1]}",
    "train.scheduler={type: MultiStepLR, milestones: [2, 6], gamma: 0.5}",
]


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [KINDS, KINDS[::-1]])
def test_a_schedule_of_another_kind_is_where_it_would_be_from_the_start(
    before: str, after: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*LONGER, after, "name=whole") == 0
    whole = rates(capsys)
    assert train(*STEPS, before) == 0
    capsys.readouterr()
    assert train(*LONGER, after, "--auto_resume") == 0
    assert rates(capsys) == whole[4:]
    assert train(WITHOUT_VALIDATION, "train:total_iter=9", after, "--auto_resume") == 0
    assert "Changed since the checkpoint" not in capsys.readouterr().err


def test_without_changes_nothing_is_said(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(*STEPS) == 0 and train(*LONGER, "--auto_resume") == 0
    assert "Changed since the checkpoint" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    ["val:metrics:std={type: calculate_pixel_std}", "val:temperature=[0, 0.9]", "val:metrics:psnr:better=lower"],
)
def test_metrics_that_are_new_since_the_checkpoint_are_recorded(change: str, workplace: Path) -> None:
    assert train() == 0
    assert train("train:total_iter=6", change, "--auto_resume") == 0
    (records,) = read_state(STATES / "6.state")["best_metric_results"].values()  # with the validation after 4
    assert all(record["iter"] >= 0 for record in records.values() if record["val"] not in (np.inf, -np.inf))
    assert any(record["iter"] == 4 for record in records.values())


def test_the_warm_up_ends_at_the_full_rate_and_loses_no_milestone(tiny_options: Section) -> None:
    scheduler = {"type": "MultiStepLR", "milestones": [2, 9], "gamma": 0.5}
    tiny_options["train"]["scheduler"] = scheduler
    model = build_model(tiny_options)
    model.optimizers[0].step()
    seen = []
    for iteration in range(1, 12):
        model.update_learning_rate(iteration, warmup_iter=4)
        seen.append(model.optimizers[0].param_groups[0]["lr"])
    half, quarter = 5e-4, 2.5e-4
    # the milestones count from 0, as BasicSR's do: the first lies within the warm-up
    assert seen == pytest.approx([1e-3 / 4, 1e-3 / 2, half * 3 / 4, *[half] * 6, quarter, quarter])


@pytest.mark.slow
def test_auto_resume_passes_over_what_is_not_whole(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(WITHOUT_VALIDATION, "train:total_iter=6") == 0
    truncate(STATES / "6.state")
    truncate(NETWORKS / "net_g_4.pth")
    capsys.readouterr()
    assert train(WITHOUT_VALIDATION, "train:total_iter=7", "--auto_resume") == 0
    assert "Resuming training from epoch: 0, iter: 2" in capsys.readouterr().err


def test_a_state_without_its_network_is_named(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(WITHOUT_VALIDATION) == 0
    (NETWORKS / "net_g_2.pth").unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        train(WITHOUT_VALIDATION, f"path:resume_state={STATES / '2.state'}")
    assert stop.value.code == 2
    assert "net_g_2.pth, which does not exist" in capsys.readouterr().err


def test_the_last_and_the_best_are_kept(workplace: Path) -> None:
    keep = ["logger:keep_last=2", "logger:keep_best=psnr_tau0", "val:save_img=false", "logger:save_checkpoint_freq=1"]
    assert train(*keep, "train:total_iter=6") == 0
    assert names(NETWORKS) == ["net_g_5.pth", "net_g_6.pth", "net_g_best.pth", "net_g_latest.pth"]
    assert names(STATES) == ["5.state", "6.state"]
    best = read_state(STATES / "6.state")["best_metric_results"]["held_out"]["psnr_tau0"]
    assert best["iter"] in (2, 4)


# -- disks -------------------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_checkpoint_before_whole(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    def full(content: dict[str, Any], path: Path) -> None:
        if path.name == "net_g_4.pth":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save_atomically(content, path)

    monkeypatch.setattr(state, "save_atomically", full)
    assert train(WITHOUT_VALIDATION, "train:total_iter=6") == 0
    assert "No space left on device" in (output := capsys.readouterr().err)
    assert "the newest checkpoint is that of iteration 2. Training goes on." in output
    assert names(STATES) == ["2.state", "6.state"]
    monkeypatch.setattr(state, "save_atomically", lambda content, path: full(content, Path("net_g_4.pth")))
    with pytest.raises(SystemExit) as stop:
        train(WITHOUT_VALIDATION, "train:total_iter=1")
    assert stop.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("basicsr: stopped: The checkpoint could not be written") and "--auto_resume" in last


def test_nothing_is_deleted_for_a_checkpoint_that_could_not_be_written(
    tiny_options: Section, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(build_model(tiny_options), keep_last=1, keep_best=None)
    for folder in (STATES, NETWORKS):
        folder.mkdir(parents=True)
    checkpoints.save(0, Progress(2, 4, 0))

    def full(content: dict[str, Any], path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(state, "save_atomically", full)
        checkpoints.save(0, Progress(4, 8, 0))
    assert names(STATES) == ["2.state"] and names(NETWORKS) == ["net_g_2.pth"]
    checkpoints.save(0, Progress(6, 12, 0))
    assert names(STATES) == ["6.state"] and names(NETWORKS) == ["net_g_6.pth"]
