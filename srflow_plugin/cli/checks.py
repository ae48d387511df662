"""What can be wrong with an option file, found before anything is written.

Keys and types are checked where we know what reads them: for sections that become keyword arguments against the class's
own signature, for the rest against the tables below. Sections of third-party classes are left to those.
"""

from __future__ import annotations

import difflib
import inspect
import math
import mmap
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

import lmdb
import numpy as np
import torch
from basicsr.models import lr_scheduler
from basicsr.utils.registry import (
    ARCH_REGISTRY,
    DATASET_REGISTRY,
    LOSS_REGISTRY,
    METRIC_REGISTRY,
    MODEL_REGISTRY,
    Registry,
)

from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.checkpoints import check_encoder_fit, check_fit, encoder_weights, network_weights, read_checkpoint
from srflow_plugin.data.loading import close_files
from srflow_plugin.errors import UserError
from srflow_plugin.metrics.samples import Over, measure
from srflow_plugin.models.srflow_model import make_val_variants

Section = dict[str, Any]

TOP_KEYS: Mapping[str, Any] = {
    "name": str,
    "model_type": str,
    "scale": int,
    "num_gpu": int | Literal["auto"],
    "manual_seed": int | None,
    "find_unused_parameters": bool,
    "dist_params": dict,
    "datasets": dict,
    "network_g": dict,
    "path": dict,
    "train": dict,
    "val": dict | None,
    "logger": dict,
}
PATH_KEYS = {
    "pretrain_network_g": str | None,
    "param_key_g": str,
    "strict_load_g": bool,
    "resume_state": str | None,
    "ignore_resume_networks": str | None,
}
PATH_KEYS_OF_MODEL: Mapping[str, Mapping[str, Any]] = {
    "SRFlowModel": {"pretrain_network_encoder": str | None, "param_key_encoder": str},
    "SRModel": {},
}
TRAIN_KEYS = {
    "total_iter": int,
    "warmup_iter": int,
    "ema_decay": float,
    "optim_g": dict,
    "scheduler": dict,
}
TRAIN_KEYS_OF_MODEL: Mapping[str, Mapping[str, Any]] = {
    "SRFlowModel": {
        "nll_opt": dict,
        "pixel_opt": dict | None,
        "perceptual_opt": dict | None,
        "freeze_encoder_iters": int,
        "grad_clip": float,
        "accumulation_steps": int,
        "max_skipped_steps": int,
    },
    "SRModel": {"pixel_opt": dict | None, "perceptual_opt": dict | None},
}
VAL_KEYS = {"val_freq": int, "save_img": bool, "suffix": str | None, "pbar": bool, "metrics": dict | None}
VAL_KEYS_OF_MODEL: Mapping[str, Mapping[str, Any]] = {
    "SRFlowModel": {
        "temperature": float | list[float],
        "num_samples": int,
        "seed": int,
        "tile": int | Literal["auto"] | None,
        "resample": float | None,
        "bicubic": bool,
    },
    "SRModel": {},
}
LOGGER_KEYS = {
    "print_freq": int,
    "save_checkpoint_freq": int,
    "keep_last": int | None,
    "keep_best": str | None,
    "use_tb_logger": bool,
    "wandb": dict | None,
}
PAIRED_DATASET_KEYS: Mapping[str, Any] = {
    "name": str,
    "type": str,
    "dataroot_gt": str,
    "dataroot_lq": str,
    "prepare": Literal["embedded"] | None,
    "meta_info_file": str | None,
    "filename_tmpl": str,
    "io_backend": dict,
    "gt_size": int,
    "use_hflip": bool,
    "use_rot": bool,
    "color": str | None,
    "mean": list[float] | None,
    "std": list[float] | None,
    "num_worker_per_gpu": int,
    "batch_size_per_gpu": int,
    "dataset_enlarge_ratio": int,
    "prefetch_mode": str | None,
    "num_prefetch_queue": int,
    "pin_memory": bool,
    "persistent_workers": bool,
    "skip_bad_images": bool,
}
RANGES: Mapping[str, tuple[float, float]] = {
    "manual_seed": (0, math.inf),
    "datasets.train.gt_size": (1, math.inf),
    "datasets.train.batch_size_per_gpu": (1, math.inf),
    "datasets.train.num_worker_per_gpu": (0, math.inf),
    "datasets.train.dataset_enlarge_ratio": (1, math.inf),
    "train.total_iter": (1, math.inf),
    "train.freeze_encoder_iters": (0, math.inf),
    "train.accumulation_steps": (1, math.inf),
    "train.max_skipped_steps": (1, math.inf),
    "train.ema_decay": (0, 1),
    "train.grad_clip": (0, math.inf),
    "val.val_freq": (1, math.inf),
    "val.num_samples": (1, math.inf),
    "val.tile": (1, math.inf),
    "logger.print_freq": (1, math.inf),
    "logger.save_checkpoint_freq": (1, math.inf),
    "logger.keep_last": (1, math.inf),
}
SCHEDULERS: Mapping[str, Callable[..., Any]] = {
    "MultiStepLR": lr_scheduler.MultiStepRestartLR,
    "MultiStepRestartLR": lr_scheduler.MultiStepRestartLR,
    "CosineAnnealingRestartLR": lr_scheduler.CosineAnnealingRestartLR,
}


def check_options(opt: Section, is_train: bool) -> None:
    """Check everything that needs no file but the option file itself."""
    _require("", opt, ["name", "model_type", "num_gpu", "datasets", "network_g", "path"])
    _require("", opt, ["train", "logger"] if is_train else ["val"])
    _check_types("", opt, {key: hint for key, hint in TOP_KEYS.items() if key in opt})
    model_type = opt["model_type"]
    _registered("model_type", model_type, MODEL_REGISTRY)
    network = _registered_section("network_g", opt["network_g"], ARCH_REGISTRY)
    if network is SRFlowNet:
        _build(opt)
    _check_names(opt)
    if isinstance(opt["num_gpu"], int) and opt["num_gpu"] > torch.cuda.device_count():
        raise UserError(f"num_gpu: {opt['num_gpu']} but this machine has {torch.cuda.device_count()}; use auto")

    if model_type in TRAIN_KEYS_OF_MODEL:
        _check_keys("", opt, TOP_KEYS)
        _check_keys("path", opt["path"], {**PATH_KEYS, **PATH_KEYS_OF_MODEL[model_type]})
        _check_keys("val", opt.get("val") or {}, {**VAL_KEYS, **VAL_KEYS_OF_MODEL[model_type]})
    for phase, dataset in opt["datasets"].items():
        _check_dataset(f"datasets.{phase}", dataset, is_train)
    for name, metric in ((opt.get("val") or {}).get("metrics") or {}).items():
        own = ("over",) if model_type == "SRFlowModel" else ()
        _registered_section(
            f"val.metrics.{name}", metric, METRIC_REGISTRY, given=("img", "img2", "lq", "nll", "better", *own)
        )
        if metric.get("over", "mean") not in typing.get_args(Over):
            raise UserError(f"val.metrics.{name}.over: {metric['over']!r} is not {_describe(Over)}")
        _try_metric(f"val.metrics.{name}", metric, model_type)
    if is_train:
        _check_training(opt)
    _check_ranges(opt)
    if model_type == "SRFlowModel":
        _check_srflow(opt, is_train)


def _try_metric(where: str, metric: Section, model_type: str) -> None:
    """Metrics say nothing about the types of their options: better now than after the first hours of training."""
    image = np.random.default_rng(0).integers(0, 256, (240, 240, 3), dtype=np.uint8)  # a multiple of every scale
    try:
        measure([image, image[:, ::-1]], image[::-1], None, metric, 0.0 if model_type == "SRFlowModel" else None)
    except Exception as error:
        raise UserError(f"{where} cannot be computed: {' '.join(str(error).split()) or repr(error)}") from error


def _check_ranges(opt: Section) -> None:
    for where, (low, high) in RANGES.items():
        value: Any = opt
        for key in where.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, int | float) and not low <= value <= high:
            raise UserError(
                f"{where}: {value} must be {low} or more" + (f", at most {high}" if high < math.inf else "")
            )


def _check_names(opt: Section) -> None:
    """Names that become parts of file names stay in the experiment's folder."""
    names = {"name": opt["name"], "val.suffix": (opt.get("val") or {}).get("suffix")}
    for phase, dataset in opt["datasets"].items():
        names[f"datasets.{phase}.name"] = dataset.get("name") if isinstance(dataset, dict) else None
    for where, name in names.items():
        if name is not None and (str(name).strip(". ") == "" or set(str(name)) & set("/\\\0")):
            raise UserError(f"{where}: {name!r} must be a plain name, without / and not of dots alone")


def check_processes(opt: Section, opt_file: str) -> None:
    """Check that several GPUs have a process each."""
    if opt["is_train"] and opt["model_type"] == "SRFlowModel" and not opt["dist"] and opt["num_gpu"] > 1:
        raise UserError(
            f"num_gpu is {opt['num_gpu']} in one process; start one for each GPU with `torchrun "
            f"--nproc_per_node={opt['num_gpu']} -m srflow_plugin train -opt {opt_file}`, or set num_gpu: 1"
        )


def _check_training(opt: Section) -> None:
    if "train" not in opt["datasets"]:
        raise UserError("datasets.train is missing: training needs a data set of that name")
    _require("logger", opt["logger"], ["print_freq", "save_checkpoint_freq", "use_tb_logger"])
    _check_keys("logger", opt["logger"], LOGGER_KEYS)
    if opt.get("val"):
        _require("val", opt["val"], ["val_freq", "save_img"])
    train_opt = opt["train"]
    _require("train", train_opt, ["total_iter", "optim_g", "scheduler"])
    if opt["model_type"] in TRAIN_KEYS_OF_MODEL:
        _check_keys("train", train_opt, {**TRAIN_KEYS, **TRAIN_KEYS_OF_MODEL[opt["model_type"]]})
    for key in ("nll_opt", "pixel_opt", "perceptual_opt"):
        if train_opt.get(key):
            _registered_section(f"train.{key}", train_opt[key], LOSS_REGISTRY)

    _require("train.scheduler", train_opt["scheduler"], ["type"])
    scheduler = _known("train.scheduler.type", train_opt["scheduler"]["type"], SCHEDULERS)
    _check_arguments("train.scheduler", train_opt["scheduler"], SCHEDULERS[scheduler], given=("type", "optimizer"))
    _require("train.optim_g", train_opt["optim_g"], ["type", "lr"])
    optimizers = {name: kind for name, kind in vars(torch.optim).items() if inspect.isclass(kind)}
    optimizer = _known("train.optim_g.type", train_opt["optim_g"]["type"], optimizers)
    given = ("type", "params", *(["lr_encoder"] if opt["model_type"] == "SRFlowModel" else []))
    _check_arguments("train.optim_g", train_opt["optim_g"], optimizers[optimizer], given)
    lrs = {key: value for key, value in train_opt["optim_g"].items() if key in ("lr", "lr_encoder")}
    _check_types("train.optim_g", lrs, {"lr": float, "lr_encoder": float})


def _check_srflow(opt: Section, is_train: bool) -> None:
    """What SRFlowModel asks for beyond its keys."""
    if opt["path"].get("pretrain_network_g") and opt["path"].get("pretrain_network_encoder"):
        raise UserError("path.pretrain_network_g holds an encoder, too; leave path.pretrain_network_encoder out")
    if opt.get("scale") != opt["network_g"].get("scale", 4):
        raise UserError(f"scale: {opt.get('scale')} and network_g.scale: {opt['network_g'].get('scale', 4)} must agree")
    if is_train:
        _require("train", opt["train"], ["nll_opt"])
        dataset = opt["datasets"]["train"]
        network = opt["network_g"]
        multiple = max(opt["scale"], 2 ** network.get("num_levels", 3))
        if isinstance(dataset.get("gt_size"), int) and dataset["gt_size"] % multiple:
            raise UserError(f"datasets.train.gt_size: {dataset['gt_size']} must be a multiple of {multiple}")
        steps = opt["train"].get("accumulation_steps", 1)
        if isinstance(dataset.get("batch_size_per_gpu"), int) and dataset["batch_size_per_gpu"] % steps:
            raise UserError(
                f"train.accumulation_steps: {steps} must divide datasets.train.batch_size_per_gpu, "
                f"{dataset['batch_size_per_gpu']}"
            )
        for key in ("nll_opt", "pixel_opt"):
            reduction = (opt["train"].get(key) or {}).get("reduction", "mean")
            if steps > 1 and reduction != "mean":
                raise UserError(f"train.{key}.reduction: {reduction} with accumulation_steps must be mean")
    elif not opt["path"].get("pretrain_network_g"):
        raise UserError("path.pretrain_network_g is missing: name the checkpoint to test")
    val_opt = opt.get("val") or {}
    best = opt["logger"].get("keep_best") if is_train else None
    if best is not None:
        metrics = [name for variant in make_val_variants(val_opt) for name in variant.metrics]
        _known("logger.keep_best", best, metrics)
    temperature = val_opt.get("temperature", 0)
    if min(temperature if isinstance(temperature, list) else [temperature], default=-1) < 0:
        raise UserError(f"val.temperature: {temperature} must be 0 or more, one number or a list")
    if not 0 <= (val_opt.get("resample") or 0) < 1:
        raise UserError(f"val.resample: {val_opt['resample']} must be from 0 to below 1")


def _check_dataset(where: str, dataset: Section, is_train: bool) -> None:
    if not isinstance(dataset, dict):
        raise UserError(f"{where} must be a section with keys such as name, type and dataroot_gt")
    _require(where, dataset, ["name", "type"])
    _registered(f"{where}.type", dataset["type"], DATASET_REGISTRY)
    phase = where.rpartition(".")[2].split("_")[0]
    if is_train and phase not in ("train", "val"):
        raise UserError(f"{where}: in training a data set is called train, val or val_<something>")
    if "io_backend" in dataset:
        _require(f"{where}.io_backend", dataset["io_backend"], ["type"])
        # Not memcached, BasicSR's third: its options name a folder to import code from.
        _known(f"{where}.io_backend.type", dataset["io_backend"]["type"], ["disk", "lmdb"])
        _check_keys(f"{where}.io_backend", dataset["io_backend"], {"type": str, "readahead": bool})
    if dataset["type"] != "PairedImageDataset":
        return
    _require(where, dataset, ["dataroot_gt", "dataroot_lq", "io_backend"])
    _check_keys(where, dataset, PAIRED_DATASET_KEYS)
    if is_train and phase == "train":
        _require(where, dataset, ["gt_size", "use_hflip", "use_rot", "num_worker_per_gpu", "batch_size_per_gpu"])


def check_weights(opt: Section) -> None:
    """Check that the checkpoints named under ``path`` can be read and, for SRFlowNet, that they fit.

    A perceptual loss has weights, too, which its class fetches.
    """
    for key, path in opt["path"].items():
        if path is None or not key.startswith("pretrain_network"):
            continue
        try:
            state = read_checkpoint(Path(path))
            if key == "pretrain_network_g" and opt["model_type"] == "SRFlowModel":
                weights = network_weights(state, opt["path"].get("param_key_g", "params"), path)
                check_fit(weights, _build(opt), path, strict=opt["path"].get("strict_load_g", True))
            elif key == "pretrain_network_encoder" and opt["model_type"] == "SRFlowModel":
                weights = encoder_weights(state, opt["path"].get("param_key_encoder", "params"), path)
                check_encoder_fit(weights, _build(opt).encoder, path)
        except UserError as error:
            raise UserError(f"path.{key}: {error}") from None
    perceptual = opt["train"].get("perceptual_opt") if opt["is_train"] else None
    if perceptual:
        arguments = {key: value for key, value in perceptual.items() if key != "type"}
        try:
            LOSS_REGISTRY.get(perceptual["type"])(**arguments)
        except OSError as error:  # an URLError, too
            raise UserError(
                f"train.perceptual_opt: the weights of {perceptual['type']} cannot be had: {error}"
            ) from None


def check_data(opt: Section) -> None:
    """Check that the data sets are there and large enough for a batch of patches."""
    for phase, dataset in opt["datasets"].items():
        if dataset["type"] != "PairedImageDataset":
            continue
        is_lmdb = dataset["io_backend"]["type"] == "lmdb"
        for key in ("dataroot_gt", "dataroot_lq"):
            where, path = f"datasets.{phase}.{key}", Path(dataset[key])
            if not path.is_dir():
                raise UserError(f"{where}: {path} does not exist; make it with `srflow prepare` or correct the path")
            if is_lmdb and (path.suffix != ".lmdb" or not (path / "meta_info.txt").is_file()):
                raise UserError(
                    f"{where}: {path} is not an LMDB; make one with `srflow prepare`, or io_backend.type: disk"
                )
            if not is_lmdb and not any(path.iterdir()):
                raise UserError(f"{where}: {path} is empty")
        if is_lmdb:
            _check_lmdbs(f"datasets.{phase}", dataset)


def _check_lmdbs(where: str, dataset: Section) -> None:
    gts, lqs = (_lmdb_sizes(f"{where}.{key}", Path(dataset[key])) for key in ("dataroot_gt", "dataroot_lq"))
    for one, other in ((gts, lqs), (lqs, gts)):
        key = next((key for key in one if key not in other), None)
        if key is not None:
            missing = dataset["dataroot_lq" if one is gts else "dataroot_gt"]
            raise UserError(f"{where}: {missing} has no image {key}; make the pair again with `srflow prepare`")
    if dataset["phase"] != "train":
        return
    images = len(gts) * dataset.get("dataset_enlarge_ratio", 1)
    if images < dataset["batch_size_per_gpu"]:
        raise UserError(
            f"{where}: {images} images do not fill a batch of {dataset['batch_size_per_gpu']}; "
            "raise dataset_enlarge_ratio or lower batch_size_per_gpu"
        )
    for key, (height, width) in gts.items():
        if min(height, width) < dataset["gt_size"]:
            size = f"{height}x{width}, smaller than gt_size {dataset['gt_size']}"
            raise UserError(f"{where}: {key} is {size}; leave it out")


def _lmdb_sizes(where: str, folder: Path) -> dict[str, tuple[int, int]]:
    """Height and width of every image by its key, as meta_info.txt lists them; the LMDB itself is whole."""
    again = "make it again with `srflow prepare`"
    sizes = {}
    for number, line in enumerate((folder / "meta_info.txt").read_bytes().splitlines(), start=1):
        match = re.fullmatch(rb"([^.]+)\.\S+ \((\d+),(\d+),\d+\)( \d+)?", line)
        if not match:
            raise UserError(f"{where}: {folder}/meta_info.txt: line {number} is {line!r:.60}; {again}")
        sizes[match[1].decode("ascii", "replace")] = int(match[2]), int(match[3])
    if not sizes:
        raise UserError(f"{where}: {folder}/meta_info.txt is empty; {again}")
    try:
        size = (folder / "data.mdb").stat().st_size
        if size < 2 * mmap.PAGESIZE:
            raise lmdb.Error("truncated")
        close_files()  # which an earlier run of this process may have left open
        with lmdb.open(str(folder), readonly=True, lock=False) as database:
            stat, info = database.stat(), database.info()
            # Reading beyond the end of the file would end this process with a bus error.
            if size < stat["psize"] * (info["last_pgno"] + 1):
                raise lmdb.Error("truncated")
    except (OSError, lmdb.Error) as error:
        raise UserError(f"{where}: {folder}/data.mdb cannot be read: {error}; {again}") from None
    if stat["entries"] < len(sizes):
        held = f"meta_info.txt lists {len(sizes)} images, the LMDB has {stat['entries']}"
        raise UserError(f"{where}: {folder}: {held}; {again}")
    return sizes


# -- keys and types ----------------------------------------------------------------------------------------------------


def _require(where: str, section: Any, keys: Iterable[str]) -> None:
    if not isinstance(section, dict):
        raise UserError(f"{where} must be a section with keys")
    for key in keys:
        if section.get(key) is None:
            raise UserError(f"{_join(where, key)} is missing")


def _check_keys(where: str, section: Section, hints: Mapping[str, Any]) -> None:
    for key in section:
        if key not in hints:
            raise UserError(f"{_join(where, key)} is no option{_nearest(key, hints)}")
    _check_types(where, section, hints)


def _check_types(where: str, section: Section, hints: Mapping[str, Any]) -> None:
    for key, value in section.items():
        if key in hints and not _conforms(value, hints[key]):
            raise UserError(f"{_join(where, key)}: {value!r} is not {_describe(hints[key])}")


def _check_arguments(
    where: str, section: Section, function: Callable[..., Any], given: Sequence[str] = ("type",)
) -> None:
    """Check a section that becomes keyword arguments, but for the keys ``given`` otherwise."""
    parameters = {
        name: parameter for name, parameter in inspect.signature(function).parameters.items() if name not in given
    }
    arguments = {key: value for key, value in section.items() if key not in given}
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if not takes_any or function.__module__.startswith("basicsr."):  # BasicSR's metrics ignore what they do not know
        for key in arguments:
            if key not in parameters:
                raise UserError(f"{_join(where, key)} is no option of {function.__name__}{_nearest(key, parameters)}")
    for name, parameter in parameters.items():
        optional = parameter.default is not parameter.empty
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and not optional and name not in arguments:
            raise UserError(f"{_join(where, name)} is missing")
    owner = function.__init__ if inspect.isclass(function) else function
    _check_types(where, arguments, typing.get_type_hints(owner) if owner.__module__.startswith("srflow_plugin") else {})


def _registered_section(
    where: str, section: Section, registry: Registry, given: Sequence[str] = ()
) -> Callable[..., Any]:
    """Check a section with a ``type`` from a registry and that class's keyword arguments; return the class."""
    _require(where, section, ["type"])
    registered = _registered(f"{where}.type", section["type"], registry)
    _check_arguments(where, section, registered, given=("type", *given))
    return registered


def _registered(where: str, name: str, registry: Registry) -> Callable[..., Any]:
    return registry.get(_known(where, name, dict(iter(registry))))


def _known(where: str, name: str, names: Iterable[str]) -> str:
    names = list(names)
    if name not in names:
        raise UserError(f"{where}: {name!r} is not known{_nearest(str(name), names)}")
    return name


def _nearest(name: str, names: Iterable[str]) -> str:
    names = list(names)
    matches = difflib.get_close_matches(str(name), names, n=1)
    matches = matches or sorted((known for known in names if name and str(name) in known), key=len)
    return f"; did you mean {matches[0]}?" if matches else f"; known are {', '.join(sorted(names))}"


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else str(key)


def _conforms(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_conforms(value, argument) for argument in arguments)
    if origin is Literal:
        return value in arguments
    if origin is not None:  # Sequence[int], list[float]
        return isinstance(value, list | tuple) and all(_conforms(item, arguments[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return value is None if hint is type(None) else isinstance(value, hint)


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(argument) for argument in arguments)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin is not None:
        return f"a list, each {_describe(arguments[0])}"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", dict: "a section with keys"}
    return names.get(hint, "none")


def _build(opt: Section) -> SRFlowNet:
    """The SRFlowNet of ``network_g``, without memory."""
    arguments = {key: value for key, value in opt["network_g"].items() if key != "type"}
    try:
        with torch.device("meta"):
            return SRFlowNet(**arguments)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"network_g: {error}") from None
