"""Checkpoints that survive what happens to a run: written whole or not at all, found again, deleted in order.

An iteration's checkpoint is BasicSR's pair: ``models/net_g_<iteration>.pth``, then
``training_states/<iteration>.state``. A state is there only when its networks are.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor

from srflow_plugin.errors import TrainingError
from srflow_plugin.files import remove_leftovers, save_atomically

State = dict[str, Any]
KEPT_BY_BASICSR = ("queue_lr", "queue_gt", "queue_ptr", "mean_path_length")
STORABLE = (bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device)


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
        weights = {key: self.get_bare_model(net).state_dict() for key, net in zip(keys, nets, strict=True)}
        if self.opt["rank"] == 0:
            weights = storable(weights, f"the network {net_label}")
            save_atomically(weights, Path(self.opt["path"]["models"]) / f"{net_label}_{current_iter}.pth")

    def save_training_state(self, epoch: int, current_iter: int | str) -> None:
        """Write nothing: the state holds more than the model knows."""


class ShortLog:
    """Part of a model that names its networks in the log, each in a line; BasicSR prints every layer."""

    def print_network(self, net: torch.nn.Module) -> None:
        """Log a network's class and size."""
        count = sum(parameter.numel() for parameter in net.parameters())
        get_root_logger().info(f"Network {type(getattr(net, 'module', net)).__name__}: {count:,d} parameters.")


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
    own = (WholeNetworks, ShortLog) if has_own_rates else (WholeNetworks, ShortLog, WarmUp)
    model = type(kind.__name__, (*own, kind), {"__module__": kind.__module__})(deepcopy(opt))
    get_root_logger().info(f"Model [{kind.__name__}] is created.")
    return model


def make_state(model: BaseModel, epoch: int, progress: Progress) -> State:
    """Make the training state of a model: what a run needs beside the networks to go on as if it had not stopped."""
    state = {
        "epoch": epoch,
        "iter": progress.iteration,
        "optimizers": [optimizer.state_dict() for optimizer in model.optimizers],
        "schedulers": [scheduler.state_dict() for scheduler in model.schedulers],
        "best_metric_results": getattr(model, "best_metric_results", {}),
        **(model.own_state() if hasattr(model, "own_state") else basicsrs_state(model)),
        "samples": progress.samples,
        "manual_seed": progress.seed,
        "total_iter": int(model.opt["train"]["total_iter"]),
    }
    return {key: storable(value, f"the training state's {key}") for key, value in state.items()}


def basicsrs_state(model: BaseModel) -> State:
    """Make the part of a state that BasicSR's own models need: what they keep from one iteration to the next.

    That is Real-ESRGAN's pool of pairs and StyleGAN's mean, and which weights are frozen: the video models freeze some
    in iteration 1, and only then.
    """
    frozen = {
        name: [key for key, parameter in net.named_parameters() if not parameter.requires_grad]
        for name, net in _networks_of(model).items()
    }
    return {"kept": {name: vars(model)[name] for name in KEPT_BY_BASICSR if name in vars(model)}, "frozen": frozen}


def give_back(model: BaseModel, state: State) -> None:
    """Give a model of BasicSR's own what :func:`basicsrs_state` kept."""
    for name, value in state.get("kept", {}).items():
        if name not in KEPT_BY_BASICSR:
            raise ValueError(f"{name} is nothing that a state keeps")
        setattr(model, name, value.to(model.device) if isinstance(value, Tensor) else value)
    for name, net in _networks_of(model).items():
        frozen = set(state.get("frozen", {}).get(name, []))
        for key, parameter in net.named_parameters():
            parameter.requires_grad_(key not in frozen)


def _networks_of(model: BaseModel) -> dict[str, torch.nn.Module]:
    nets = {name: net for name, net in vars(model).items() if name.startswith("net_") and not name.endswith("_ema")}
    return {name: model.get_bare_model(net) for name, net in nets.items() if isinstance(net, torch.nn.Module)}


def storable(value: Any, what: str) -> Any:
    """Make of a value what can be read again without running code; numbers of NumPy become numbers.

    Args:
        value: tensors, numbers, text, arrays, and lists, tuples, sets and dictionaries of these.
        what: it is, for the message.

    Raises:
        TrainingError: it is something else, which no run could go on from.
    """
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, Path):
        return str(value)
    if type(value) is Counter:
        return value
    if isinstance(value, Mapping):
        items = {storable(key, what): storable(part, f"{what}.{key}") for key, part in value.items()}
        return OrderedDict(items) if isinstance(value, OrderedDict) else items
    if isinstance(value, list | tuple | set) and not isinstance(value, torch.Size):
        parts = [storable(part, what) for part in value]
        return parts if isinstance(value, list) else (set(parts) if isinstance(value, set) else tuple(parts))
    if value is None or type(value) in STORABLE:
        return value
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise TrainingError(f"{what} is a {kind}, which could not be read again; keep numbers, text, tensors and lists")


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
        if model.opt["rank"] == 0:
            for folder in (self.models, self.states):
                remove_leftovers(folder, alone=True)  # the run has its name to itself

    def save(self, epoch: int, progress: Progress, must: bool = False, more: State | None = None) -> None:
        """Save networks, then the state, with what is to be kept beside; then delete what is older than the last
        ``keep_last`` checkpoints.
        """
        is_first = self.model.opt["rank"] == 0
        state = make_state(self.model, epoch, progress) | (more or {}) if is_first else None
        if self.save_networks(progress.iteration, must, state) and self.keep_last and is_first:
            try:
                self._delete_older(self.keep_last)
            except OSError as error:
                get_root_logger().error(
                    f"An older checkpoint could not be deleted: {error.strerror} ({error.filename})."
                )

    def _delete_older(self, keep_last: int) -> None:
        """Delete checkpoints; the newest is on the disk, with its name."""
        for old in state_files(self.states)[:-keep_last]:
            old.unlink()  # first, so that no state is without its networks
            for network in self.models.glob(f"net_*_{old.stem}.pth"):
                network.unlink()

    def save_networks(self, label: int | str, must: bool = False, state: State | None = None) -> bool:
        """Save the networks under a label, and then a state, if there is one; return whether they could be written.

        A disk that is full, or gone for a while, does not end the training unless they ``must`` be saved.
        """
        try:
            self.model.save(-1, label)
            if state is not None:
                save_atomically(state, self.states / f"{label}.state")
        except OSError as error:
            states = state_files(self.states) if self.states.is_dir() else []
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


def state_files(folder: Path) -> list[Path]:
    """List the states, from the oldest to the newest.

    Raises:
        OSError: the folder is there, and cannot be read.
    """
    try:
        paths = [*folder.iterdir()]  # which glob() would pass over in silence
    except FileNotFoundError:
        return []
    states = (path for path in paths if path.suffix == ".state" and path.stem.isdecimal())
    return sorted(states, key=lambda path: int(path.stem))
