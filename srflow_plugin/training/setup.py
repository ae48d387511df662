"""From an option file to a run: checked, completed as BasicSR's ``parse_options`` does, data and processes ready."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from basicsr.utils import set_random_seed
from basicsr.utils.dist_util import get_dist_info

from srflow_plugin.checkpoints.shipped import BY_NAME
from srflow_plugin.data.embedded import prepare_embedded
from srflow_plugin.data.pairing import at_home
from srflow_plugin.errors import UserError
from srflow_plugin.locks import held
from srflow_plugin.metrics.published import read_without_code
from srflow_plugin.options.check import load_checked
from srflow_plugin.options.registered import check_registered
from srflow_plugin.options.resources import check_data, check_weights
from srflow_plugin.options.schema import SRFLOW_MODELS, Section
from srflow_plugin.training.distributed import any_rank, gather, gather_work, init_dist
from srflow_plugin.training.log import check_boards
from srflow_plugin.training.resume import resolve_resume

DEBUG_FREQUENCY = 8
Launcher = Literal["none", "pytorch", "slurm"]


class Run(NamedTuple):
    """A training or a test that can begin.

    Attributes:
        opt: the options as BasicSR's models and data sets are handed them.
        opt_file: where they come from.
        notes: on what is accepted and changes nothing, or is done otherwise on this machine.
        lock: keeps other runs of its name away until it is closed, or its process ends.
        plugins: what was imported to register classes, each with its version.
    """

    opt: Section
    opt_file: Path
    notes: list[str]
    lock: ExitStack
    plugins: Sequence[str] = ()


@read_without_code()
def load_run(
    path: str | Path,
    *,
    is_train: bool,
    force: Sequence[str] = (),
    launcher: Launcher = "none",
    auto_resume: bool = False,
    debug: bool = False,
    root: Path | None = None,
) -> Run:
    """Read an option file, check it, join the processes, prepare the data, seed.

    Nothing is written, except data sets that ask to be prepared, until every check has passed.

    Args:
        path: the option file.
        is_train: to train, or to test.
        force: changes such as "train:total_iter=1000".
        launcher: how the processes were started.
        auto_resume: go on from the experiment's newest whole state, if there is one.
        debug: log every iteration, save and validate every eighth.
        root: folder of experiments and results. Default: the current one.

    Raises:
        UserError: the first mistake in the file or in what it names.
    """
    opt, notes = load_checked(Path(path), force, is_train)
    notes += fit_machine(opt)
    check_registered(opt, is_train)
    if is_train:
        check_boards(opt)
    _join_processes(opt, launcher)
    opt["auto_resume"], opt["is_train"] = auto_resume, is_train
    complete_options(opt, root or Path.cwd(), debug)
    _check_processes(opt, path)
    with ExitStack() as stack:
        gather_work(lambda: stack.enter_context(_alone(opt)) if opt["rank"] == 0 else None)
        if is_train:
            notes += resolve_resume(opt)
        check_weights(opt)
        _prepare_data(opt)
        gather_work(lambda: check_data(opt) if opt["rank"] == 0 else None)
        lock = stack.pop_all()

    if opt.get("manual_seed") is None:
        opt["manual_seed"] = gather(random.randint(1, 10000))[0]
    set_random_seed(opt["manual_seed"] + opt["rank"])
    return Run(opt, Path(path), notes, lock)


def _alone(opt: Section) -> AbstractContextManager[None]:
    """Keep other runs of this name away: they would rename this one's folder, or write into it."""
    kind = "experiments" if opt["is_train"] else "results"
    folder = Path(opt["path"][f"{kind}_root"])
    return held(folder.with_name(f".{folder.name}.lock"), f"the name {opt['name']}")


def _join_processes(opt: Section, launcher: Launcher) -> None:
    opt["dist"] = launcher != "none"
    if opt["dist"]:
        init_dist(launcher, **opt.get("dist_params") or {}, use_gpu=opt["num_gpu"] != 0)
    opt["rank"], opt["world_size"] = get_dist_info()


@read_without_code()
def check_options(path: Path, force: Sequence[str] = (), with_data: bool = False) -> list[str]:
    """Check an option file as a training or, where it has no ``train``, a test would; write nothing.

    Args:
        path: the option file.
        force: changes as in :func:`load_run`.
        with_data: check the weights and data sets that it names, too, but for those that a run prepares.

    Returns:
        Notes on what is accepted and changes nothing, or is done otherwise on this machine.

    Raises:
        UserError: the first mistake.
    """
    opt, notes = load_checked(path, force)
    notes += fit_machine(opt)
    is_train = opt.get("train") is not None
    check_registered(opt, is_train)
    if with_data:
        opt["is_train"] = is_train
        complete_options(opt, Path.cwd())
        check_weights(opt)
        prepared = [phase for phase, dataset in opt["datasets"].items() if dataset.get("prepare")]
        check_data({**opt, "datasets": {key: opt["datasets"][key] for key in opt["datasets"] if key not in prepared}})
    return notes


def fit_machine(opt: Section) -> list[str]:
    """Do without what this machine has not, in place; say what."""
    gpus, notes = torch.cuda.device_count(), []
    if opt["num_gpu"] != "auto" and opt["num_gpu"] > gpus:
        notes.append(f"num_gpu: {opt['num_gpu']}, and this machine has {gpus}" + ("" if gpus else ": on the CPU"))
        opt["num_gpu"] = gpus
    for phase, dataset in opt["datasets"].items():
        if dataset.get("prefetch_mode") == "cuda" and gpus == 0:
            notes.append(f"datasets.{phase}.prefetch_mode: cuda, and this machine has no GPU: as cpu")
            dataset["prefetch_mode"] = "cpu"
    return notes


def complete_options(opt: Section, root: Path, debug: bool = False) -> None:
    """Add to a checked file's options, in place, what models and data sets expect beside them."""
    opt["root_path"] = str(root)
    if opt["is_train"]:
        opt["logger"].setdefault("use_tb_logger", False)
    if opt.get("val"):
        opt["val"].setdefault("metrics", None)
    if debug and not opt["name"].startswith("debug"):
        opt["name"] = "debug_" + opt["name"]
    if opt["num_gpu"] == "auto":
        opt["num_gpu"] = torch.cuda.device_count()
    for key, path in opt["path"].items():
        if isinstance(path, str) and ("resume_state" in key or "pretrain_network" in key):
            opt["path"][key] = str(BY_NAME[path].path if path in BY_NAME else at_home(path))
    _complete_paths(opt, root)
    if opt["is_train"] and "debug" in opt["name"]:
        opt["logger"].update(print_freq=1, save_checkpoint_freq=DEBUG_FREQUENCY)
        if opt.get("val"):
            opt["val"]["val_freq"] = DEBUG_FREQUENCY
    for phase, dataset in opt["datasets"].items():
        dataset["phase"] = phase.split("_")[0]  # val_1 and val_2 are validation sets both
        if "scale" in opt:
            dataset["scale"] = opt["scale"]
        for key in ("dataroot_gt", "dataroot_lq"):
            if dataset.get(key) is not None:
                dataset[key] = str(at_home(dataset[key]))


def _check_processes(opt: Section, opt_file: str | Path) -> None:
    """Check that several GPUs have a process each."""
    if opt["is_train"] and opt["model_type"] in SRFLOW_MODELS and not opt["dist"] and opt["num_gpu"] > 1:
        raise UserError(
            f"num_gpu is {opt['num_gpu']} in one process; start one for each GPU with `torchrun "
            f"--nproc_per_node={opt['num_gpu']} -m srflow_plugin train -opt {opt_file}`, or set num_gpu: 1"
        )


def _prepare_data(opt: Section) -> None:
    """Make the data sets that ask for it, by rank 0."""
    for dataset in opt["datasets"].values():
        if dataset.get("prepare") == "embedded" and opt["rank"] == 0:
            lmdbs = Path(dataset["dataroot_gt"]), Path(dataset["dataroot_lq"])
            prepare_embedded("train" if dataset["phase"] == "train" else "val", *lmdbs, dataset["scale"])
    any_rank(False)  # nobody looks before the data are there


def _complete_paths(opt: Section, root: Path) -> None:
    if opt["is_train"]:
        experiment = at_home(opt["path"].get("experiments_root") or root / "experiments") / opt["name"]
        opt["path"]["experiments_root"] = str(experiment)
        opt["path"]["models"] = str(experiment / "models")
        opt["path"]["training_states"] = str(experiment / "training_states")
        opt["path"]["log"] = str(experiment)
        opt["path"]["visualization"] = str(experiment / "visualization")
    else:
        results = at_home(opt["path"].get("results_root") or root / "results") / opt["name"]
        opt["path"]["results_root"] = str(results)
        opt["path"]["log"] = str(results)
        opt["path"]["visualization"] = str(results / "visualization")
