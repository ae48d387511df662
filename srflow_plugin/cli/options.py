"""Option files: read safely, changed by ``--force_yml``, completed as BasicSR's ``parse_options`` completes them."""

from __future__ import annotations

import random
import re
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from basicsr.utils import set_random_seed
from basicsr.utils.dist_util import get_dist_info

from srflow_plugin.cli.checks import check_data, check_options, check_processes, check_weights
from srflow_plugin.data.embedded import prepare_embedded
from srflow_plugin.distributed import any_rank, gather, init_dist
from srflow_plugin.errors import UserError
from srflow_plugin.training_state import resolve_resume

DEBUG_FREQUENCY = 8


class _Loader(yaml.SafeLoader):
    """YAML without Python objects, in which ``5e-4`` is the number that everybody means (YAML 1.1 reads text)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_options(path: Path) -> dict[str, Any]:
    """Read an option file."""
    try:
        with path.open(encoding="utf-8") as file:
            opt = yaml.load(file, _Loader)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give an option file with -opt, see options/") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(opt, dict):
        raise UserError(f"{path} is not an option file: it has no keys")
    return opt


def force_options(opt: dict[str, Any], entries: Sequence[str]) -> None:
    """Set ``key:subkey=value`` entries; keys may be new. Values are YAML; ``none`` is null as in BasicSR."""
    for entry in entries:
        keys, separator, text = entry.partition("=")
        names = [name.strip() for name in keys.split(":")]
        if not separator or not all(names):
            raise UserError(f"--force_yml {entry}: write key:subkey=value, e.g. train:ema_decay=0.999")
        try:
            value = None if text.strip().lower() == "none" else yaml.load(text, _Loader)
        except yaml.YAMLError:
            raise UserError(f"--force_yml {entry}: {text!r} is not a YAML value") from None
        section = opt
        for depth, name in enumerate(names[:-1], start=1):
            section = section.setdefault(name, {})
            if not isinstance(section, dict):
                raise UserError(f"--force_yml {entry}: {':'.join(names[:depth])} is a value and has no keys")
        section[names[-1]] = value


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
