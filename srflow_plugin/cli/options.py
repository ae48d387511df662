"""From the command line to options: checked, completed as BasicSR's ``parse_options`` completes them."""

from __future__ import annotations

import random
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from basicsr.utils import set_random_seed
from basicsr.utils.dist_util import get_dist_info

from srflow_plugin.cli.checks import check_data, check_options, check_processes, check_weights
from srflow_plugin.data.embedded import prepare_embedded
from srflow_plugin.distributed import any_rank, gather, init_dist
from srflow_plugin.option_files import force_options, load_options
from srflow_plugin.training_state import resolve_resume

DEBUG_FREQUENCY = 8


def parse_options(args: Namespace, root: Path, is_train: bool) -> dict[str, Any]:
    """Everything between the command line and a pipeline: read, check, join the processes, prepare the data, seed.

    Nothing is written, except data sets that ask to be prepared, until every check has passed.
    """
    opt = load_options(Path(args.opt))
    force_options(opt, args.force_yml or [])
    check_options(opt, is_train)

    opt["dist"] = args.launcher != "none"
    if opt["dist"]:
        init_dist(args.launcher, **opt.get("dist_params") or {})
    opt["rank"], opt["world_size"] = get_dist_info()
    opt["auto_resume"] = args.auto_resume
    opt["is_train"] = is_train
    opt["root_path"] = str(root)
    if args.debug and not opt["name"].startswith("debug"):
        opt["name"] = "debug_" + opt["name"]
    if opt["num_gpu"] == "auto":
        opt["num_gpu"] = torch.cuda.device_count()
    check_processes(opt, args.opt)
    for key, path in opt["path"].items():
        if isinstance(path, str) and ("resume_state" in key or "pretrain_network" in key):
            opt["path"][key] = str(Path(path).expanduser())
    _complete_paths(opt, root)
    if is_train and "debug" in opt["name"]:
        opt["logger"].update(print_freq=1, save_checkpoint_freq=DEBUG_FREQUENCY)
        if opt.get("val"):
            opt["val"]["val_freq"] = DEBUG_FREQUENCY

    if is_train:
        resolve_resume(opt)
    check_weights(opt)
    for phase, dataset in opt["datasets"].items():
        dataset["phase"] = phase.split("_")[0]  # val_1 and val_2 are validation sets both
        if "scale" in opt:
            dataset["scale"] = opt["scale"]
        for key in ("dataroot_gt", "dataroot_lq"):
            if dataset.get(key) is not None:
                dataset[key] = str(Path(dataset[key]).expanduser())
        if dataset.get("prepare") == "embedded" and opt["rank"] == 0:
            lmdbs = Path(dataset["dataroot_gt"]), Path(dataset["dataroot_lq"])
            prepare_embedded("train" if dataset["phase"] == "train" else "val", *lmdbs, dataset["scale"])
    any_rank(False)  # nobody looks before the data are there
    check_data(opt)

    if opt.get("manual_seed") is None:
        opt["manual_seed"] = gather(random.randint(1, 10000))[0]
    set_random_seed(opt["manual_seed"] + opt["rank"])
    return opt


def _complete_paths(opt: dict[str, Any], root: Path) -> None:
    if opt["is_train"]:
        experiment = root / "experiments" / opt["name"]
        opt["path"]["experiments_root"] = str(experiment)
        opt["path"]["models"] = str(experiment / "models")
        opt["path"]["training_states"] = str(experiment / "training_states")
        opt["path"]["log"] = str(experiment)
        opt["path"]["visualization"] = str(experiment / "visualization")
    else:
        results = root / "results" / opt["name"]
        opt["path"]["results_root"] = str(results)
        opt["path"]["log"] = str(results)
        opt["path"]["visualization"] = str(results / "visualization")
