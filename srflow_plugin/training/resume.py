"""Resume of a training: its newest whole checkpoint found, its state read, and what the option file says now holds."""

from __future__ import annotations

import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger

from srflow_plugin.checkpoints.load import read_checkpoint
from srflow_plugin.errors import UserError
from srflow_plugin.training.distributed import gather_work
from srflow_plugin.training.state import give_back, state_files, storable

SCHEDULE_PROGRESS = {"last_epoch", "base_lrs", "verbose"}
STATE_KEYS = {  # type, and whether BasicSR's own states have it
    "epoch": (int, True),
    "iter": (int, True),
    "optimizers": (list, True),
    "schedulers": (list, True),
    "samples": (int, False),
    "manual_seed": (int, False),
    "best_metric_results": (dict, False),
    "skipped_steps": (int, False),
    "total_iter": (int, False),
    "kept": (dict, False),
    "frozen": (dict, False),
}
# What a pickled number of NumPy is made of; the names are those of NumPy 1 and 2.
_scalar: Any = np.float64(0).__reduce__()[0]
NUMPY_NUMBERS: list[Any] = [
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(letter)) for letter in np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"},
]


def resolve_resume(opt: dict[str, Any]) -> list[str]:
    """Set the paths to resume from: with --auto_resume the experiment's newest whole checkpoint, else the option's.

    The networks are those beside the state, wherever that is. BasicSR's own asks for a CUDA device and looks in the
    current folder.

    Returns:
        Notes on newer checkpoints that were passed over.

    Raises:
        UserError: there is no whole checkpoint among those that are there, or one cannot be read at the moment.
    """
    path_opt = opt["path"]
    notes: list[str] = []
    if opt["auto_resume"]:
        # By rank 0: file servers do not show all machines the same at the same moment.
        newest, notes = gather_work(lambda: find_newest(opt) if opt["rank"] == 0 else (None, []))[0]
        path_opt["resume_state"] = str(newest) if newest else path_opt.get("resume_state")
    if not path_opt.get("resume_state"):
        return notes
    path = Path(path_opt["resume_state"])
    iteration = read_state(path)["iter"]
    for key, network in _networks(path, iteration, opt).items():
        if not network.is_file():
            raise UserError(f"path.resume_state: {path} needs {network}, which does not exist")
        path_opt[f"pretrain_{key}"] = str(network)
        path_opt[f"param_key_{key.removeprefix('network_')}"] = "params"
        path_opt[f"strict_load_{key.removeprefix('network_')}"] = True
    path_opt.pop("pretrain_network_encoder", None)
    return notes


def find_newest(opt: dict[str, Any]) -> tuple[Path | None, list[str]]:
    """Find an experiment's newest whole checkpoint, and why newer ones are passed over; None: there is none at all."""
    states = state_files(Path(opt["path"]["training_states"]))
    notes = []
    for state in reversed(states):
        try:
            for network in _networks(state, read_state(state)["iter"], opt).values():
                read_checkpoint(network)
        except UserError as error:
            if isinstance(error.__cause__, OSError):
                raise UserError(f"{error}; make it readable, or move {state} away") from None
            notes.append(f"{state} is passed over: {error}")
        else:
            return state, notes
    if states:
        raise UserError(
            f"--auto_resume: none of the {len(states)} checkpoints can be used; {notes[0]}. Move "
            f"{states[0].parents[1]} away, or go without --auto_resume, to begin anew"
        )
    return None, []


def read_state(path: Path) -> dict[str, Any]:
    """Read a training state; BasicSR's metrics may have put numbers of NumPy into one."""
    try:
        with torch.serialization.safe_globals(NUMPY_NUMBERS):
            state = read_checkpoint(path)
    except UserError as error:
        raise UserError(f"path.resume_state: {error}") from error.__cause__
    for key, (kind, is_required) in STATE_KEYS.items():
        value = state.get(key)
        is_right = isinstance(value, kind) and not (kind is int and value < 0)  # type: ignore[operator]
        if not is_right and (is_required or key in state):
            raise UserError(f"path.resume_state: {path} is not a training state: {key} is {value!r:.40}")
    return state


def resume(model: BaseModel, state: dict[str, Any], path: Path) -> None:
    """Give optimisers, schedules and best metrics back to a model; what its option file says otherwise now holds."""
    plans = [Plan.of(scheduler) for scheduler in model.schedulers]
    try:
        model.resume_training(state)
        if not hasattr(model, "own_state"):
            _load_networks(model, path, state["iter"])
            give_back(model, state)
        changes = [change for plan in plans for change in plan.reconcile()]
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"path.resume_state: {path} is not of this model and its options: {error}") from error
    changes += _differences("", state, {"total_iter": int(model.opt["train"]["total_iter"])})
    if changes:
        get_root_logger().info(f"Changed since the checkpoint, and so from here on: {'; '.join(changes)}.")
    model.best_metric_results = storable(state.get("best_metric_results", {}), "the state")
    for records in model.best_metric_results.values():
        _add_records(records, (model.opt.get("val") or {}).get("metrics") or {})


def _load_networks(model: BaseModel, state: Path, iteration: int) -> None:
    """Load the networks of a checkpoint into a model of BasicSR's own: HiFaceGANModel forgets its discriminator's."""
    for key, file in _networks(state, iteration, model.opt).items():
        net = getattr(model, f"net_{key.removeprefix('network_')}", None)
        weights = read_checkpoint(file).get("params")
        if net is not None and weights is not None:
            model.get_bare_model(net).load_state_dict(weights)


class Plan(NamedTuple):
    """Plan of an optimiser and its schedule, as an option file has it, kept over a resume.

    Attributes:
        scheduler: with its optimiser, as :meth:`reconcile` finds and leaves them.
        settings: of the schedule.
        groups: settings of the optimiser's groups; the rate to begin with is "initial_lr".
    """

    scheduler: Any
    settings: dict[str, Any]
    groups: list[dict[str, Any]]

    @classmethod
    def of(cls, scheduler: Any) -> Plan:
        """Read the plan of a schedule that has not begun."""
        return cls(scheduler, _settings(scheduler.state_dict()), deepcopy(_group_settings(scheduler.optimizer)))

    def reconcile(self) -> list[str]:
        """Put the plan in place of what a state has given the schedule and its optimiser; list what that changes."""
        loaded = _settings(self.scheduler.state_dict())
        changes = _differences("", loaded, self.settings)
        for key in loaded.keys() - self.settings.keys():  # of a scheduler of another type
            changes.append(f"{key} {loaded[key]} -> {type(self.scheduler).__name__}")
            delattr(self.scheduler, key)
        is_new_schedule = bool(changes)
        groups = self.scheduler.optimizer.param_groups
        for group, before, planned in zip(groups, _group_settings(self.scheduler.optimizer), self.groups, strict=True):
            different = _differences(f"{group['name']} " if "name" in group else "", before, planned)
            changes += different
            is_new_schedule = is_new_schedule or before.get("initial_lr") != planned.get("initial_lr")
            if different:
                group.update(planned)
        if is_new_schedule:
            self._replay(self.scheduler.last_epoch)
        return changes

    def _replay(self, steps: int) -> None:
        """Take the planned schedule's first steps."""
        for group, planned in zip(self.scheduler.optimizer.param_groups, self.groups, strict=True):
            group["lr"] = planned["initial_lr"]
        rates = [planned["initial_lr"] for planned in self.groups]
        self.scheduler.load_state_dict({**self.settings, "base_lrs": rates, "last_epoch": 0, "_last_lr": rates})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the optimiser takes no steps
            for _ in range(steps):
                self.scheduler.step()


def _settings(state: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a schedule's state how far it has come."""
    return {key: value for key, value in state.items() if not key.startswith("_") and key not in SCHEDULE_PROGRESS}


def _group_settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Leave out of an optimiser's groups the parameters, and the rate, which changes with the iterations."""
    return [
        {key: value for key, value in group.items() if key not in ("params", "lr")} for group in optimizer.param_groups
    ]


def _differences(what: str, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """List the settings that both have and that differ."""
    pairs = {key: (before[key], after[key]) for key in after if key in before}
    return [
        f"{what}{key.removeprefix('initial_')} {old} -> {new}"
        for key, (old, new) in pairs.items()
        if _plain(old) != _plain(new)
    ]


def _plain(value: Any) -> Any:
    """Make a list of a tuple: option files have lists where defaults are tuples."""
    return list(value) if isinstance(value, tuple) else value


def _add_records(records: dict[str, Any], metrics: dict[str, Any]) -> None:
    """Begin the records of metrics that a data set has had none of, as BasicSR does at its first validation."""
    for name, metric in metrics.items():
        better = metric.get("better", "higher")
        if name not in records or records[name]["better"] != better:
            records[name] = {"better": better, "val": float("-inf" if better == "higher" else "inf"), "iter": -1}


def _networks(state: Path, iteration: int, opt: dict[str, Any]) -> dict[str, Path]:
    """Find the networks of a state, by their keys in the option file."""
    folder = state.absolute().parent.parent / "models"
    ignored = opt["path"].get("ignore_resume_networks") or ""
    return {
        key: folder / f"net_{key.removeprefix('network_')}_{iteration}.pth"
        for key in opt
        if key.startswith("network_") and key not in ignored
    }
