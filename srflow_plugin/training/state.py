"""Checkpoints that survive what happens to a run: written whole or not at all, found again, deleted in order.

An iteration's checkpoint is BasicSR's pair: ``models/net_g_<iteration>.pth``, then
``training_states/<iteration>.state``. A state is there only when its networks are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY

from srflow_plugin.checkpoints.load import read_checkpoint
from srflow_plugin.errors import TrainingError, UserError
from srflow_plugin.files import save_atomically
from srflow_plugin.training.distributed import gather

State = dict[str, Any]
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
}


@dataclass
class Progress:
    """Progress of a training; part of its state.

    Attributes:
        iteration: steps taken.
        samples: images seen, of all processes together: the number of the next draw.
        seed: of all that is random.
    """

    iteration: int
    samples: int
    seed: int

    @classmethod
    def of(cls, state: State | None, seed: int, batch_size: int) -> Progress:
        """Take up a state's, or begin; BasicSR's own states say only the iteration."""
        if state is None:
            return cls(0, 0, seed)
        iteration = state["iter"]
        return cls(iteration, state.get("samples", iteration * batch_size), state.get("manual_seed", seed))


class WholeNetworks:
    """Part of a model that writes its networks whole or not at all, and leaves its state to :class:`Checkpoints`.

    BasicSR's own can leave half a file, and goes on as if it had been written.
    """

    opt: dict[str, Any]
    get_bare_model: Callable[[Any], torch.nn.Module]

    def save_network(self, net: Any, net_label: str, current_iter: int | str, param_key: Any = "params") -> None:
        """Write one network, or several under their keys, as BaseModel does."""
        nets, keys = (value if isinstance(value, list) else [value] for value in (net, param_key))
        weights = {
            key: {name: value.cpu() for name, value in self.get_bare_model(net).state_dict().items()}
            for key, net in zip(keys, nets, strict=True)
        }
        if self.opt["rank"] == 0:
            save_atomically(weights, Path(self.opt["path"]["models"]) / f"{net_label}_{current_iter}.pth")

    def save_training_state(self, epoch: int, current_iter: int | str) -> None:
        """Write nothing: the state holds more than the model knows."""


class WarmUp:
    """Part of a model whose schedule goes on below the warm-up.

    BasicSR's own lets the schedule start from the rates of the warm-up: they stay at (w - 1) / w of what they should be
    for good, and a milestone within the warm-up is lost.
    """

    schedulers: list[Any]

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Set the rates of an iteration, as BaseModel does."""
        for scheduler in self.schedulers:
            groups = scheduler.optimizer.param_groups
            for group, rate in zip(groups, scheduler.get_last_lr(), strict=True):
                group["lr"] = rate
            if current_iter > 1:
                scheduler.step()
            if current_iter < warmup_iter:
                for group in groups:
                    group["lr"] = group["lr"] / warmup_iter * current_iter


def build_model(opt: dict[str, Any]) -> BaseModel:
    """Build the model that an option file names, any of BasicSR's or a plugin's, with :class:`WholeNetworks`."""
    kind = MODEL_REGISTRY.get(opt["model_type"])
    has_own_rates = kind.update_learning_rate is not BaseModel.update_learning_rate
    bases = (WholeNetworks, kind) if has_own_rates else (WholeNetworks, WarmUp, kind)
    model = type(kind.__name__, bases, {"__module__": kind.__module__})(deepcopy(opt))
    get_root_logger().info(f"Model [{kind.__name__}] is created.")
    return model


def make_state(model: BaseModel, epoch: int, progress: Progress) -> State:
    """Make the training state of a model: what a run needs beside the networks to go on as if it had not stopped."""
    return {
        "epoch": epoch,
        "iter": progress.iteration,
        "optimizers": [optimizer.state_dict() for optimizer in model.optimizers],
        "schedulers": [scheduler.state_dict() for scheduler in model.schedulers],
        "best_metric_results": getattr(model, "best_metric_results", {}),
        **(model.own_state() if hasattr(model, "own_state") else {}),
        "samples": progress.samples,
        "manual_seed": progress.seed,
    }


class Checkpoints:
    """Saves a model from time to time; keeps the last few and the best, as the option file says.

    Args:
        model: from :func:`build_model`.
        keep_last: checkpoints of iterations that stay; None keeps all.
        keep_best: the metric whose best value so far has its network in ``models/net_g_best.pth``; None: no such file.
    """

    def __init__(self, model: BaseModel, keep_last: int | None, keep_best: str | None) -> None:
        self.model = model
        self.keep_last = keep_last
        self.keep_best = keep_best
        self.models, self.states = (Path(model.opt["path"][key]) for key in ("models", "training_states"))

    def save(self, epoch: int, progress: Progress, must: bool = False) -> None:
        """Save networks, then the state; then delete what is older than the last ``keep_last`` checkpoints."""
        state = make_state(self.model, epoch, progress)
        if self.save_networks(progress.iteration, must, state) and self.keep_last and self.model.opt["rank"] == 0:
            for old in _state_files(self.states)[: -self.keep_last]:
                old.unlink()  # first, so that no state is without its networks
                for network in self.models.glob(f"net_*_{old.stem}.pth"):
                    network.unlink()

    def save_networks(self, label: int | str, must: bool = False, state: State | None = None) -> bool:
        """Save the networks under a label, and then a state, if there is one; return whether they could be written.

        A disk that is full, or gone for a while, does not end the training unless they ``must`` be saved.
        """
        try:
            self.model.save(-1, label)
            if state is not None and self.model.opt["rank"] == 0:
                save_atomically(state, self.states / f"{label}.state")
        except OSError as error:
            states = _state_files(self.states)
            newest = f"the newest checkpoint is that of iteration {states[-1].stem}" if states else "there is none yet"
            failure = (
                f"The checkpoint could not be written: {error.strerror} ({error.filename or self.models}); {newest}"
            )
            if must:
                raise TrainingError(f"{failure}. Make room and go on with --auto_resume") from None
            get_root_logger().error(f"{failure}. Training goes on.")
            return False
        return True

    def save_if_best(self, current_iter: int) -> None:
        """After a validation: save the network if its metric is the best so far, on the first data set that has it."""
        for results in getattr(self.model, "best_metric_results", {}).values():
            if self.keep_best in results:
                if results[self.keep_best]["iter"] == current_iter:
                    self.save_networks("best")
                return


def resolve_resume(opt: dict[str, Any]) -> None:
    """Set the paths to resume from: with --auto_resume the experiment's newest whole checkpoint, else the option's.

    The networks are those beside the state, wherever that is. BasicSR's own asks for a CUDA device and looks in the
    current folder.
    """
    path_opt = opt["path"]
    if opt["auto_resume"]:
        folder = Path(path_opt["training_states"])
        newest = next((state for state in reversed(_state_files(folder)) if _is_whole(state, opt)), None)
        newest = gather(newest)[0]  # file servers do not show all machines the same at the same moment
        path_opt["resume_state"] = str(newest) if newest else path_opt.get("resume_state")
    if not path_opt.get("resume_state"):
        return
    path = Path(path_opt["resume_state"])
    iteration = read_state(path)["iter"]
    for key, network in _networks(path, iteration, opt).items():
        if not network.is_file():
            raise UserError(f"path.resume_state: {path} needs {network}, which does not exist")
        path_opt[f"pretrain_{key}"] = str(network)
        path_opt[f"param_key_{key.removeprefix('network_')}"] = "params"
        path_opt[f"strict_load_{key.removeprefix('network_')}"] = True
    path_opt.pop("pretrain_network_encoder", None)


def read_state(path: Path) -> dict[str, Any]:
    """Read a training state."""
    try:
        state = read_checkpoint(path)
    except UserError as error:
        raise UserError(f"path.resume_state: {error}") from None
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
        changes = [change for plan in plans for change in plan.reconcile()]
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"path.resume_state: {path} is not of this model and its options: {error}") from error
    if changes:
        get_root_logger().info(f"Changed since the checkpoint, and so from here on: {'; '.join(changes)}.")
    model.best_metric_results = state.get("best_metric_results", {})
    for records in model.best_metric_results.values():
        _add_records(records, (model.opt.get("val") or {}).get("metrics") or {})


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


def _state_files(folder: Path) -> list[Path]:
    """List the states, from the oldest to the newest."""
    return sorted((path for path in folder.glob("*.state") if path.stem.isdecimal()), key=lambda path: int(path.stem))


def _networks(state: Path, iteration: int, opt: dict[str, Any]) -> dict[str, Path]:
    """Find the networks of a state, by their keys in the option file."""
    folder = state.absolute().parent.parent / "models"
    ignored = opt["path"].get("ignore_resume_networks") or ""
    return {
        key: folder / f"net_{key.removeprefix('network_')}_{iteration}.pth"
        for key in opt
        if key.startswith("network_") and key not in ignored
    }


def _is_whole(state: Path, opt: dict[str, Any]) -> bool:
    try:
        networks = _networks(state, read_state(state)["iter"], opt)
        return all(read_checkpoint(network) is not None for network in networks.values())
    except UserError:
        return False
