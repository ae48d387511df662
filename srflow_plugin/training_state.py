"""Checkpoints that survive what happens to a run: written whole or not at all, found again, deleted in order.

An iteration's checkpoint is BasicSR's pair: ``models/net_g_<iteration>.pth``, then
``training_states/<iteration>.state``. A state is there only when its networks are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger

from srflow_plugin.checkpoints import read_checkpoint
from srflow_plugin.distributed import gather
from srflow_plugin.errors import TrainingError, UserError
from srflow_plugin.files import save_atomically

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


def save_network(model: BaseModel, net: Any, net_label: str, current_iter: Any, param_key: Any = "params") -> None:
    """BaseModel's, written atomically. BasicSR's own can leave half a file, and goes on as if it had been written."""
    nets, keys = (value if isinstance(value, list) else [value] for value in (net, param_key))
    weights = {
        key: {name: value.cpu() for name, value in model.get_bare_model(net).state_dict().items()}
        for key, net in zip(keys, nets, strict=True)
    }
    label = "latest" if current_iter == -1 else current_iter
    if model.opt["rank"] == 0:
        save_atomically(weights, Path(model.opt["path"]["models"]) / f"{net_label}_{label}.pth")


def save_training_state(model: BaseModel, epoch: int, current_iter: int | str) -> None:
    """BaseModel's, written atomically, with what BasicSR forgets: ``model.progress`` and the best metrics."""
    if current_iter == -1 or isinstance(current_iter, str) or model.opt["rank"] != 0:
        return
    state = {
        "epoch": epoch,
        "iter": current_iter,
        "optimizers": [optimizer.state_dict() for optimizer in model.optimizers],
        "schedulers": [scheduler.state_dict() for scheduler in model.schedulers],
        "best_metric_results": getattr(model, "best_metric_results", {}),
        "skipped_steps": getattr(model, "faults", 0),
        **getattr(model, "progress", {}),
    }
    save_atomically(state, Path(model.opt["path"]["training_states"]) / f"{current_iter}.state")


class Checkpoints:
    """Saves a model from time to time; keeps the last few and the best, as the option file says.

    Args:
        model: any BasicSR model.
        keep_last: checkpoints of iterations that stay; None keeps all.
        keep_best: the metric whose best value so far has its network in ``models/net_g_best.pth``; None: no such file.
    """

    def __init__(self, model: BaseModel, keep_last: int | None, keep_best: str | None) -> None:
        # Called by the model's own save(), which says what to save.
        BaseModel.save_network = save_network
        BaseModel.save_training_state = save_training_state
        self.model = model
        self.keep_last = keep_last
        self.keep_best = keep_best
        self.models, self.states = (Path(model.opt["path"][key]) for key in ("models", "training_states"))

    def save(self, epoch: int, current_iter: int | str, must: bool = False) -> None:
        """Save the networks and, for an iteration, its state; then delete what is older than the last ``keep_last``.

        ``current_iter`` may be a label for networks without a state, -1 being BasicSR's for "latest".

        A disk that is full, or gone for a while, does not end the training unless it ``must`` be saved.
        """
        try:
            self.model.save(epoch, current_iter)
        except OSError as error:
            states = _state_files(self.states)
            newest = f"the newest checkpoint is that of iteration {states[-1].stem}" if states else "there is none yet"
            failure = (
                f"The checkpoint could not be written: {error.strerror} ({error.filename or self.models}); {newest}"
            )
            if must:
                raise TrainingError(f"{failure}. Make room and go on with --auto_resume") from None
            get_root_logger().error(f"{failure}. Training goes on.")
            return
        if self.keep_last and self.model.opt["rank"] == 0:
            for state in _state_files(self.states)[: -self.keep_last]:
                state.unlink()  # first, so that no state is without its networks
                for network in self.models.glob(f"net_*_{state.stem}.pth"):
                    network.unlink()

    def save_if_best(self, current_iter: int) -> None:
        """After a validation: save the network if its metric is the best so far, on the first data set that has it."""
        for results in getattr(self.model, "best_metric_results", {}).values():
            if self.keep_best in results:
                if results[self.keep_best]["iter"] == current_iter:
                    self.save(-1, "best")
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
    """Give optimisers, schedules and best metrics back to a model."""
    try:
        model.resume_training(state)
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"path.resume_state: {path} is not of this model and its options: {error}") from error
    model.best_metric_results = state.get("best_metric_results", {})


def _state_files(folder: Path) -> list[Path]:
    """From the oldest to the newest."""
    return sorted((path for path in folder.glob("*.state") if path.stem.isdecimal()), key=lambda path: int(path.stem))


def _networks(state: Path, iteration: int, opt: dict[str, Any]) -> dict[str, Path]:
    """Where the networks of a state are, by their keys in the option file."""
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
