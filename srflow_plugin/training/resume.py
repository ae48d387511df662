"""Resume of a training: its newest whole checkpoint found, its state read, and what the option file says now holds."""

from __future__ import annotations

import math
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger
from torch import Tensor

from srflow_plugin.checkpoints.load import read_checkpoint
from srflow_plugin.errors import UserError
from srflow_plugin.training.distributed import gather_work
from srflow_plugin.training.state import give_back, state_files, storable

LARGEST = 2**53  # of a count
# Of what optimisers keep of a parameter; Adam's are needed all.
OF_ITS_SHAPE = {
    "exp_avg",
    "exp_avg_sq",
    "max_exp_avg_sq",
    "exp_inf",
    "momentum_buffer",
    "square_avg",
    "grad_avg",
    "sum",
}
OF_ADAM = {"step", "exp_avg", "exp_avg_sq"}
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
    "amp": (dict, False),
}
_scalar: Any = np.float64(0).__reduce__()[0]


def _number(kind: np.dtype[Any], content: bytes) -> Any:
    """Make a number of NumPy, and nothing of its other types, which can be of any size."""
    if kind.kind not in "biuf" or len(content) != kind.itemsize:
        raise ValueError(f"{kind!s:.40} is no number")
    return _scalar(kind, content)


# What a pickled number of NumPy is made of; the names are those of NumPy 1 and 2.
NUMPY_NUMBERS: list[Any] = [
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
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
    folder, models = Path(opt["path"]["training_states"]), Path(opt["path"].get("models", "models"))
    try:
        states = state_files(folder)
    except OSError as error:
        raise UserError(f"--auto_resume: {folder} cannot be read: {error.strerror}; make it readable") from error
    notes = []
    for state in reversed(states):
        try:
            for network in _networks(state, read_state(state)["iter"], opt).values():
                read_checkpoint(network)
        except UserError as error:
            if error.__cause__ is not None:  # of the machine, not of the file
                raise UserError(f"{error}; make it readable, or move {state} away") from None
            notes.append(f"{state} is passed over: {error}")
        else:
            return state, notes
    if states:
        raise UserError(
            f"--auto_resume: none of the {len(states)} checkpoints can be used; {notes[0]}. Move "
            f"{states[0].parents[1]} away, or go without --auto_resume, to begin anew"
        )
    if any(models.glob("net_*.pth")):
        notes.append(f"{models} has networks, but {folder} no state to go on from: the training begins anew")
    return None, notes


def read_state(path: Path) -> dict[str, Any]:
    """Read a training state; BasicSR's metrics may have put numbers of NumPy into one."""
    try:
        with torch.serialization.safe_globals(NUMPY_NUMBERS):
            state = read_checkpoint(path)
    except UserError as error:
        raise UserError(f"path.resume_state: {error}") from error.__cause__
    for key, (kind, is_required) in STATE_KEYS.items():
        value: Any = state.get(key)
        is_right = isinstance(value, kind)
        if kind is int:
            is_right = type(value) is int and 0 <= value < LARGEST
        if not is_right and (is_required or key in state):
            shown = " ".join(repr(value).split())
            raise UserError(f"path.resume_state: {path} is not a training state: {key} is {shown:.40}")
    return state


def resume(model: BaseModel, state: dict[str, Any], path: Path) -> None:
    """Give optimisers, schedules and best metrics back to a model; what its option file says otherwise now holds."""
    plans = [Plan.of(scheduler) for scheduler in model.schedulers]
    try:
        model.resume_training(state)
        for optimizer in model.optimizers:
            _check_optimizer(optimizer)
        for scheduler, saved in zip(model.schedulers, state["schedulers"], strict=True):
            _check_schedule(scheduler, saved)
        if not hasattr(model, "own_state"):
            _load_networks(model, path, state["iter"])
            give_back(model, state)
        changes = [change for plan in plans for change in plan.reconcile()]
        model.best_metric_results = _records(state.get("best_metric_results", {}))
    except (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"path.resume_state: {path} is not of this model and its options: {reason:.300}") from error
    changes += _differences("", state, {"total_iter": int(model.opt["train"]["total_iter"])})
    if changes:
        get_root_logger().info(f"Changed since the checkpoint, and so from here on: {'; '.join(changes)}.")
    for records in model.best_metric_results.values():
        _add_records(records, (model.opt.get("val") or {}).get("metrics") or {})


def _check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Compare what an optimiser has been given with its parameters; PyTorch would find out at the next step."""
    needed = OF_ADAM if isinstance(optimizer, torch.optim.Adam) else set()
    for parameter, kept in optimizer.state.items():
        if not isinstance(parameter, Tensor) or not isinstance(kept, dict) or (kept and not needed <= kept.keys()):
            raise ValueError("the optimizer's state is not of the parameters")
        for key in kept.keys() & (OF_ITS_SHAPE | {"step"}):
            value, is_count = kept[key], key == "step"
            if is_count and not isinstance(value, bool) and isinstance(value, int | float):
                continue
            if not isinstance(value, Tensor) and not (value is None and not needed):
                raise ValueError(f"the optimizer's {key} is a {type(value).__name__}")
            if value is not None and value.shape != (torch.Size() if is_count else parameter.shape):
                raise ValueError(
                    f"the optimizer's {key} is {list(value.shape)}, of a parameter {list(parameter.shape)}"
                )
    for group in optimizer.param_groups:
        _check_rates([group["lr"]], 1)


def _check_schedule(scheduler: Any, saved: dict[str, Any]) -> None:
    """Check how far a schedule has come; the rest of it is the option file's."""
    rates = len(scheduler.optimizer.param_groups)
    if "optimizer" in saved or any(callable(getattr(type(scheduler), str(key), None)) for key in saved):
        raise ValueError("the schedule's state holds what is no part of one")
    if type(scheduler.last_epoch) is not int or not 0 <= scheduler.last_epoch < LARGEST:
        raise ValueError(f"the schedule's last_epoch is {scheduler.last_epoch!r:.40}")
    for key in ("_last_lr", "base_lrs"):
        _check_rates(getattr(scheduler, key), rates)


def _check_rates(rates: Any, count: int) -> None:
    is_right = isinstance(rates, list) and len(rates) == count
    if not is_right or not all(type(rate) in (int, float) and 0 <= rate < math.inf for rate in rates):
        raise ValueError(f"its learning rates are {rates!r:.40}, not {count} numbers")


def _records(results: Any) -> dict[str, Any]:
    """Check the best values of metrics so far, by data set and metric."""
    records: dict[str, Any] = storable(results, "the state")
    for of_set in records.values():
        for name, record in of_set.items():
            if record["better"] not in ("higher", "lower") or type(record["iter"]) is not int:
                raise ValueError(f"the best {name} is {record!r:.40}")
            record["val"] = float(record["val"])
    return records


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
            if different or not planned.keys() <= group.keys():
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
