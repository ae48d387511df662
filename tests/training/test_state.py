"""Checkpoints: written whole or not at all, deleted in order."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel

from srflow_plugin import SRFlowModel
from srflow_plugin.errors import UserError
from srflow_plugin.files import save_atomically
from srflow_plugin.options.schema import Section
from srflow_plugin.training import state
from srflow_plugin.training.resume import STATE_KEYS, read_state, resume
from srflow_plugin.training.state import Checkpoints, Progress, build_model, make_state
from tests.helpers import WITHOUT_VALIDATION, train

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
    assert made.keys() == STATE_KEYS.keys() - {"kept", "frozen", "amp"}  # of BasicSR's own models, of float16
    STATES.mkdir(parents=True)
    torch.save(made, STATES / "5.state")
    again = build_model(tiny_options)
    resume(again, read_state(STATES / "5.state"), STATES / "5.state")
    assert again.faults == 3
    with pytest.raises(UserError, match="is not of this model and its options"):
        resume(again, {**made, "optimizers": []}, STATES / "5.state")


def test_progress_is_taken_up() -> None:
    assert Progress.of(None, seed=3, batch_size=2) == Progress(iteration=0, samples=0, seed=3)
    of_basicsr = {"epoch": 1, "iter": 5, "optimizers": [], "schedulers": []}
    assert Progress.of(of_basicsr, seed=3, batch_size=2) == Progress(iteration=5, samples=10, seed=3)
    own = {**of_basicsr, "samples": 12, "manual_seed": 9}  # whatever the option file says now
    assert Progress.of(own, seed=3, batch_size=2) == Progress(iteration=5, samples=12, seed=9)


# -- schedules ---------------------------------------------------------------------------------------------------------


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
