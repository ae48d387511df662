"""Resumes: the newest whole checkpoint is found, a resumed run is the same run, and what has changed is said."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from srflow_plugin.errors import TrainingError, UserError
from srflow_plugin.training.resume import find_newest, read_state
from srflow_plugin.training.state import storable
from tests.helpers import UNIX, WITHOUT_VALIDATION, assert_same_networks, train, truncate

STATES = Path("experiments/tiny/training_states")
NETWORKS = Path("experiments/tiny/models")


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


@UNIX
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
    return rates_in(capsys.readouterr().err)


def rates_in(log: str) -> list[tuple[float, float]]:
    return [(float(flow), float(encoder)) for flow, encoder in re.findall(r"lr:\(([^,]+),([^,]+),\)", log)]


def test_changed_rates_and_schedules_hold_from_the_resume_on(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*STEPS, "train.scheduler.milestones=[100]") == 0
    assert rates(capsys) == [(1e-3, 1e-3)] * 4
    changed = ["lr=1e-5", "lr_encoder=1e-6", "weight_decay=0.1"]
    changes = [f"train.optim_g.{change}" for change in changed]
    assert train(*LONGER, "train.scheduler.milestones=[5, 7]", *changes, "--auto_resume") == 0
    out = capsys.readouterr()
    assert rates_in(out.err) == [
        (1e-5, 1e-6),
        (5e-6, 5e-7),
        (5e-6, 5e-7),
        (2.5e-6, 2.5e-7),
    ]
    assert (
        "total_iter 4 -> 8" in out.err
        and "flow lr 0.001 -> 1e-05" in out.err
        and "encoder weight_decay 0 -> 0.1" in out.err
    )
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
    assert "and so from here on: total_iter 8 -> 9.\n" in capsys.readouterr().err


def test_without_changes_nothing_is_said(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(*STEPS) == 0 and train(*LONGER, "--auto_resume") == 0
    assert "Changed since the checkpoint, and so from here on: total_iter 4 -> 8.\n" in capsys.readouterr().err
    assert train(*LONGER, "--auto_resume") == 0
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


@pytest.mark.slow
def test_auto_resume_passes_over_what_is_not_whole(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(WITHOUT_VALIDATION, "train:total_iter=6") == 0
    truncate(STATES / "6.state")
    truncate(NETWORKS / "net_g_4.pth")
    capsys.readouterr()
    assert train(WITHOUT_VALIDATION, "train:total_iter=7", "--auto_resume") == 0
    log = capsys.readouterr().err
    assert "Resuming training from epoch: 0, iter: 2" in log
    assert "6.state is passed over: path.resume_state:" in log and "net_g_4.pth is not a readable checkpoint" in log


def test_a_state_without_its_network_is_named(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(WITHOUT_VALIDATION) == 0
    (NETWORKS / "net_g_2.pth").unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        train(WITHOUT_VALIDATION, f"path:resume_state={STATES / '2.state'}")
    assert stop.value.code == 2
    assert "net_g_2.pth, which does not exist" in capsys.readouterr().err


# -- states that can be read, and those that cannot --------------------------------------------------------------------


class Odd:
    pass


STORED = [
    (np.float64(1.5), 1.5),
    ({"psnr": {"val": np.float32(2), "iter": np.int64(3)}}, {"psnr": {"val": 2.0, "iter": 3}}),
    ([np.bool_(True), (np.float16(1), None)], [True, (1.0, None)]),
    (np.array([1, 2]), torch.tensor([1, 2])),
    (Path("a/b"), "a/b"),
    ({1, 2}, {1, 2}),
]


@pytest.mark.parametrize(("value", "stored"), STORED)
def test_what_is_written_can_be_read_without_running_code(value: Any, stored: Any, tmp_path: Path) -> None:
    torch.save({"it": storable(value, "it")}, tmp_path / "it.pth")
    again = torch.load(tmp_path / "it.pth", weights_only=True)["it"]
    assert type(again) is type(stored) and str(again) == str(stored)


def test_what_could_not_be_read_again_is_refused_when_it_is_written() -> None:
    with pytest.raises(TrainingError, match=r"^the state\.best\.it is a tests\..*Odd, which could not be read again"):
        storable({"best": {"it": Odd()}}, "the state")


def test_older_states_with_numbers_of_numpy_can_be_read(tmp_path: Path) -> None:
    best = {"Set5": {"psnr": {"better": "higher", "val": np.float64(30.5), "iter": np.int32(2)}}}
    torch.save(
        {"epoch": 1, "iter": 5, "optimizers": [], "schedulers": [], "best_metric_results": best}, tmp_path / "5.state"
    )
    assert read_state(tmp_path / "5.state")["best_metric_results"] == best


def test_a_state_with_something_else_is_named_without_advice_to_run_it(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "iter": Odd()}, tmp_path / "5.state")
    with pytest.raises(UserError) as refusal:
        read_state(tmp_path / "5.state")
    text = str(refusal.value)
    assert "Odd, which is not loaded because that could run code" in text
    assert "weights_only" not in text and "\x1b" not in text


def flip(path: Path) -> None:
    """Flip a bit of a number in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_state(**changes: Any) -> None:
    state = read_state(STATES / "2.state")
    torch.save({**state, **changes}, STATES / "2.state")


def folder_in_place_of(path: Path) -> None:
    path.unlink()
    path.mkdir()


UNUSABLE: dict[str, Callable[[], object]] = {
    "junk": lambda: (STATES / "2.state").write_bytes(b"junk"),
    "empty": lambda: (STATES / "2.state").write_bytes(b""),
    "cut off": lambda: truncate(STATES / "2.state"),
    "a flipped bit": lambda: flip(STATES / "2.state"),
    "a folder": lambda: folder_in_place_of(STATES / "2.state"),
    "a network in its place": lambda: shutil.copy(NETWORKS / "net_g_2.pth", STATES / "2.state"),
    "no number": lambda: change_state(iter=True),
    "no network": lambda: (NETWORKS / "net_g_2.pth").unlink(),
    "no networks": lambda: shutil.rmtree(NETWORKS),
    "half a network": lambda: truncate(NETWORKS / "net_g_2.pth"),
    "an empty network": lambda: (NETWORKS / "net_g_2.pth").write_bytes(b""),
    "a flipped bit of the network": lambda: flip(NETWORKS / "net_g_2.pth"),
}


@pytest.fixture(scope="module")
def trained(made_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment with the checkpoint of iteration 2."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        shutil.copytree(made_data, folder, dirs_exist_ok=True)
        assert train(WITHOUT_VALIDATION, "train:total_iter=2") == 0
    return folder / "experiments"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Try to go on: return the line that says why not; no experiment is begun or renamed."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        train(WITHOUT_VALIDATION, "train:total_iter=3", "--auto_resume", *arguments)
    assert stop.value.code == 2
    assert [path.name for path in Path("experiments").iterdir() if not path.name.startswith(".")] == ["tiny"]
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("basicsr: error: ")
    return line


@pytest.mark.parametrize("how", UNUSABLE)
def test_a_run_is_never_begun_anew_because_its_states_cannot_be_used(
    how: str, workplace: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, "experiments")
    UNUSABLE[how]()
    line = refused(capsys)
    assert "none of the 1 checkpoints can be used" in line and "2.state is passed over: " in line


def test_networks_without_a_state_are_told_about(
    workplace: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, "experiments")
    (STATES / "2.state").unlink()
    assert train(WITHOUT_VALIDATION, "train:total_iter=1", "--auto_resume") == 0
    assert "no state to go on from: the training begins anew" in capsys.readouterr().err


@UNIX
@pytest.mark.parametrize("fault", [PermissionError(13, "Permission denied"), OSError(116, "Stale file handle")])
@pytest.mark.parametrize("what", ["training_states", "2.state", "net_g_2.pth"])
def test_what_cannot_be_read_now_ends_the_run(
    what: str,
    fault: OSError,
    workplace: Path,
    trained: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(trained, "experiments")

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Path, *arguments: Any, **options: Any) -> Any:
            if path.name == what:
                raise fault
            return real(path, *arguments, **options)

        return call

    monkeypatch.setattr(Path, "open", failing(Path.open))
    monkeypatch.setattr(Path, "iterdir", failing(Path.iterdir))
    assert f"{what} cannot be read: {fault.strerror}" in refused(capsys)


def first_kept(state: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = state["optimizers"][0]["state"][0]
    return kept


OF_ANOTHER_MODEL: dict[str, Callable[[dict[str, Any]], object]] = {
    "exp_avg of another shape": lambda state: first_kept(state).update(exp_avg=torch.zeros(3)),
    "exp_avg a number": lambda state: first_kept(state).update(exp_avg=5),
    "exp_avg None": lambda state: first_kept(state).update(exp_avg=None),
    "no exp_avg": lambda state: first_kept(state).pop("exp_avg"),
    "step of another shape": lambda state: first_kept(state).update(step=torch.zeros(3)),
    "step a text": lambda state: first_kept(state).update(step="a"),
    "kept is a list": lambda state: state["optimizers"][0]["state"].update({0: []}),
    "state is a list": lambda state: state["optimizers"][0].update(state=[]),
    "of more parameters": lambda state: state["optimizers"][0]["state"].update({10**6: {}}),
    "no groups": lambda state: state["optimizers"][0].update(param_groups=[]),
    "groups are numbers": lambda state: state["optimizers"][0].update(param_groups=[1, 2]),
    "a group without parameters": lambda state: state["optimizers"][0]["param_groups"][0].pop("params"),
    "parameters a number": lambda state: state["optimizers"][0]["param_groups"][0].update(params=5),
    "a rate that is a text": lambda state: state["optimizers"][0]["param_groups"][0].update(lr="a"),
    "a rate that is no number": lambda state: state["optimizers"][0]["param_groups"][0].update(lr=math.nan),
    "no rate": lambda state: state["optimizers"][0]["param_groups"][0].pop("lr"),
    "more optimizers": lambda state: state["optimizers"].append({}),
    "an optimizer is a number": lambda state: state.update(optimizers=[1]),
    "no schedules": lambda state: state.update(schedulers=[]),
    "a schedule is a number": lambda state: state.update(schedulers=[1]),
    "a schedule's optimizer": lambda state: state["schedulers"][0].update(optimizer=5),
    "a schedule's step": lambda state: state["schedulers"][0].update(step=5),
    "a schedule's place is a text": lambda state: state["schedulers"][0].update(last_epoch="a"),
    "a schedule's place is before the start": lambda state: state["schedulers"][0].update(last_epoch=-5),
    "rates of another number": lambda state: state["schedulers"][0].update(_last_lr=[0.1]),
    "rates that are texts": lambda state: state["schedulers"][0].update(base_lrs=["a", "b"]),
    "best is of numbers": lambda state: state.update(best_metric_results={"Set5": 5}),
    "best is a number": lambda state: state.update(best_metric_results={"Set5": {"psnr": 5}}),
    "best has a text": lambda state: state.update(
        best_metric_results={"Set5": {"psnr": {"better": "higher", "val": "a", "iter": 1}}}
    ),
}


@pytest.mark.parametrize("how", OF_ANOTHER_MODEL)
def test_a_state_of_something_else_ends_the_run(
    how: str, workplace: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, "experiments")
    state = read_state(STATES / "2.state")
    OF_ANOTHER_MODEL[how](state)
    torch.save(state, STATES / "2.state")
    assert "2.state is not of this model and its options: " in refused(capsys)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["optimizers"][0]["param_groups"][0].pop("betas"),
        lambda state: state["optimizers"][0]["param_groups"][0].update(betas="a"),
        lambda state: state["schedulers"][0].update(milestones=5, more=1),
    ],
)
def test_what_the_option_file_says_stands_in_place_of_a_states(
    change: Callable[[dict[str, Any]], object], workplace: Path, trained: Path
) -> None:
    shutil.copytree(trained, "experiments")
    state = read_state(STATES / "2.state")
    change(state)
    torch.save(state, STATES / "2.state")
    assert train(WITHOUT_VALIDATION, "train:total_iter=3", "--auto_resume") == 0


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
def test_a_state_that_cannot_be_read_now_is_not_passed_over(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(WITHOUT_VALIDATION, "train:total_iter=4") == 0
    load = torch.load

    def fail(file: Any, **options: Any) -> Any:
        if Path(file.name).name == "4.state":
            raise OSError(5, "Input/output error", file.name)
        return load(file, **options)

    monkeypatch.setattr(torch, "load", fail)
    paths = {"training_states": str(STATES)}
    with pytest.raises(UserError, match=r"4\.state cannot be read: Input/output error; make it readable, or move"):
        find_newest({"path": paths, "network_g": {}})
