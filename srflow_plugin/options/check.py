"""Mistakes in an option file that the file alone shows, found before anything is written. Needs no torch.

Keys, types and ranges of the sections that :mod:`srflow_plugin.options.schema` describes; sections of third-party
classes are left to those.
"""

from __future__ import annotations

import ast
import dataclasses
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from srflow_plugin.errors import UserError, close_match, nearest, short
from srflow_plugin.options.files import load_options
from srflow_plugin.options.schema import (
    DATASETS,
    RETIRED,
    SECTIONS,
    SRFLOW_MODELS,
    Degradations,
    ImageData,
    IoBackend,
    Logger,
    RealESRGANImages,
    Section,
    TopLevel,
    Trackio,
    Train,
    Val,
    Wandb,
)
from srflow_plugin.options.settle import settle
from srflow_plugin.options.types import conforms, describe, join, words

EIGHT_BIT_LEVELS = 256
LARGEST_KERNEL = 21
REAL_ESRGAN = "RealESRGANDataset"  # whose images are degraded by the model
LONGEST_NAME = 120  # bytes; with a time and an ending it must be the name of a file, of 255 at most
TEMPLATE = re.compile(r"[^{}]*\{0?\}[^{}]*")
ARCHS = Path(__file__).parents[1] / "archs"


def load_checked(path: Path, force: Sequence[str] = (), is_train: bool | None = None) -> tuple[Section, list[str]]:
    """Read an option file, change it by ``--force_yml`` entries, settle and check it.

    Args:
        path: the file.
        force: the entries.
        is_train: to train, or to test. None: as the file says.

    Returns:
        The options, and notes on what is accepted and changes nothing, or not all that one might think.

    Raises:
        UserError: the first mistake, with what would be right.
    """
    opt = load_options(path, force)
    found = settle(opt)
    check_file(opt, opt.get("train") is not None if is_train is None else is_train)
    return opt, found + notes(opt)


def check_file(opt: Section, is_train: bool) -> None:
    """Check everything that needs neither BasicSR nor another file.

    Raises:
        UserError: the first mistake, with what would be right.
    """
    require("", opt, required_keys(TopLevel, is_train) + ([] if is_train else ["val"]))
    check_types("", {key: value for key, value in opt.items() if key in _hints(TopLevel)}, _hints(TopLevel))
    check_ranges("", opt, TopLevel)
    _check_names(opt)
    if opt["network_g"].get("type") == "SRFlowNet":
        names = ["type", *_argument_names(ARCHS / "srflow_arch.py", "SRFlowNet")]
        for key in opt["network_g"]:
            if key not in names:
                raise UserError(f"network_g.{key} is no option of SRFlowNet{nearest(key, names[1:])}")
    for name, kind in SECTIONS.get(opt["model_type"], {"logger": Logger}).items():
        is_read = is_train or name in ("path", "val")
        if is_read and opt.get(name) is not None:
            check_section(name, opt[name], kind, is_train)
    _check_boards(opt)
    _check_amp(opt, is_train)
    if is_train and "train" not in opt["datasets"]:
        raise UserError("datasets.train is missing: training needs a data set of that name")
    for phase, dataset in opt["datasets"].items():
        _check_dataset(f"datasets.{phase}", dataset, is_train)
    _check_distinct(opt["datasets"])
    if opt["model_type"] in SRFLOW_MODELS:
        _check_degradations(opt, is_train)
    if is_train:
        require("train", opt["train"], required_keys(Train, is_train))
        if opt.get("val"):
            require("val", opt["val"], required_keys(Val, is_train))
        for key, keys in (("optim_g", ("type", "lr")), ("scheduler", ("type",))):
            require(f"train.{key}", opt["train"][key], keys)
    for where, key, names in unknown_keys(opt):
        if opt["model_type"] in SRFLOW_MODELS and key not in RETIRED:
            raise UserError(f"{join(where, key)} is no option{nearest(key, names)}")


def unknown_keys(opt: Section) -> Iterator[tuple[str, Any, list[str]]]:
    """List the keys that nothing reads, with the section and the keys that it may have."""
    kinds = SECTIONS.get(opt["model_type"])
    sections: list[tuple[str, Section, type]] = [("", opt, TopLevel)] if kinds is not None else []
    sections += [(name, opt.get(name) or {}, kind) for name, kind in (kinds or {"logger": Logger}).items()]
    for phase, dataset in opt["datasets"].items():
        if str(dataset["type"]) in DATASETS:  # which may be anything in a wrong file
            sections.append((f"datasets.{phase}", dataset, DATASETS[dataset["type"]]))
    for where, section, kind in sections:
        names = [field.name for field in dataclasses.fields(kind)]
        if kind is TopLevel and opt["model_type"] in SRFLOW_MODELS:
            names += [field.name for field in dataclasses.fields(Degradations)]
        if isinstance(section, dict):  # a test's logger may be anything
            yield from ((where, key, names) for key in section if key not in names)


def notes(opt: Section) -> list[str]:
    """List the options of a checked file that change nothing, or not all that one might think."""
    found = [
        f"{join(where, key)} changes nothing" + (f": {RETIRED[key]}" if key in RETIRED else close_match(key, names))
        for where, key, names in unknown_keys(opt)
    ]
    network, val = opt["network_g"], opt.get("val") or {}
    if opt.get("train") is not None:
        found += _unvalidated(opt)
    if network.get("noise") == "uniform" and network.get("noise_levels", 256) != EIGHT_BIT_LEVELS:
        found.append(f"network_g.noise_levels: with {network['noise_levels']} l_nll bounds no code of 8 bit images")
    types = [metric.get("type") for metric in (val.get("metrics") or {}).values() if isinstance(metric, dict)]
    if val.get("tile") is not None and {"calculate_code_length", "calculate_nll"} & set(types):
        found.append("val.tile: the code length is computed of whole images all the same")
    sections: list[tuple[str, Section, type]] = [
        (f"datasets.{phase}", dataset, DATASETS.get(str(dataset["type"]), ImageData))
        for phase, dataset in opt["datasets"].items()
    ]
    if opt["model_type"] in SRFLOW_MODELS:
        sections.append(("", opt, Degradations))
        found += _undegraded(opt)
    for where, section, kind in sections:
        for field in dataclasses.fields(kind):
            if field.metadata["without_effect"] and field.name in section:
                found.append(f"{join(where, field.name)} changes nothing")
    return found


def _undegraded(opt: Section) -> list[str]:
    """Note what is said of degradations in vain: no data set asks for them, or BasicSR's does not listen."""
    train = opt["datasets"].get("train", {})
    if train.get("type") == REAL_ESRGAN:
        sizes = [key for key in ("blur_kernel_size", "blur_kernel_size2") if train[key] != LARGEST_KERNEL]
        return [f"datasets.train.{key} changes nothing: {REAL_ESRGAN} takes sizes from 7 to 21" for key in sizes]
    given = [key for key in required_keys(Degradations, is_train=True) if key in opt]
    if not given:
        return []
    return [f"{', '.join(given)}: nothing is degraded but the images of a {REAL_ESRGAN}"]


def _unvalidated(opt: Section) -> list[str]:
    """Note that a training is not validated, or keeps nothing as the best."""
    if not opt.get("val"):
        found = ["val is missing: nothing is validated"]
    elif not any(phase.split("_")[0] == "val" for phase in opt["datasets"]):
        found = ["datasets.val is missing: nothing is validated"]
    else:
        found = [] if opt["val"].get("metrics") else ["val.metrics is missing: nothing is measured"]
    best, metrics = opt["logger"].get("keep_best"), (opt.get("val") or {}).get("metrics") or {}
    is_measured = not found and (best in metrics or opt["model_type"] in SRFLOW_MODELS)  # which names them otherwise
    if best and not is_measured:
        found.append(f"logger.keep_best: {best} is never measured, so that no net_g_best.pth is kept")
    return found


def check_section(where: str, section: Any, kind: type, is_train: bool) -> None:
    """Check a section's types and ranges, and that it has what it must have."""
    require(where, section, required_keys(kind, is_train))
    check_types(where, section, _hints(kind))
    check_ranges(where, section, kind)


def require(where: str, section: Any, keys: Iterable[str]) -> None:
    """Check that a section is one and has keys."""
    if not isinstance(section, dict):
        raise UserError(f"{where} must be a section with keys")
    for key in keys:
        if section.get(key) is None:
            raise UserError(f"{join(where, key)} is missing")


def required_keys(kind: type, is_train: bool) -> list[str]:
    """List the options of a section that a file must have."""
    return [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING or (is_train and field.metadata["in_training"])
    ]


def check_types(where: str, section: Section, hints: Mapping[str, Any]) -> None:
    """Compare values with types, by key; keys without a type are passed over."""
    for key, value in section.items():
        hint = hints.get(key, Any)
        if conforms(value, hint):
            continue
        if get_origin(hint) is Literal and all(isinstance(known, str) for known in get_args(hint)) and key == "type":
            raise UserError(f"{join(where, key)}: {short(value)} is not known{nearest(value, get_args(hint))}")
        meant = close_match(value, words(hint))
        raise UserError(f"{join(where, key)}: {short(value)} is not {describe(hint)}{meant}")


def check_ranges(where: str, section: Section, kind: type) -> None:
    """Compare numbers with their ranges."""
    for field in dataclasses.fields(kind):
        value, limits = section.get(field.name), field.metadata
        for number in value if isinstance(value, list) else [value]:
            if not isinstance(number, int | float) or isinstance(number, bool):
                continue
            if limits["low"] <= number <= limits["high"] and number < limits["below"]:
                continue
            raise UserError(f"{join(where, field.name)}: {short(value)} must be {_range(limits, number)}")


def check_lists(where: str, section: Section, kind: type) -> None:
    """Check lists that are intervals, or probabilities of all cases."""
    for field in dataclasses.fields(kind):
        if "interval" in field.metadata:
            _check_interval(join(where, field.name), section[field.name], field.metadata)
        if "shares" in field.metadata:
            _check_shares(join(where, field.name), section[field.name], field.metadata["shares"], section)


def _check_interval(where: str, value: list[float], limits: Mapping[str, Any]) -> None:
    """Check that a list is the smallest and the largest of something."""
    if len(value) != 2 or value[0] > value[1]:
        raise UserError(f"{where}: {short(value)} must be two numbers, the smaller one first")
    if limits["is_open"] and value[0] == value[1]:
        raise UserError(f"{where}: {short(value)} must be two numbers that differ")
    holds = limits["holds"]
    if holds is not None and not value[0] <= holds <= value[1]:
        raise UserError(f"{where}: {short(value)} must have {holds:g} between its two numbers")


def _check_shares(where: str, value: list[float], of: int | str, section: Section) -> None:
    """Check that a list has the probabilities of all cases."""
    count, cases = (of, "") if isinstance(of, int) else (len(section[of]), f", one for each of {of}")
    if len(value) != count:
        raise UserError(f"{where}: {short(value)} must be {count} numbers{cases}")
    if not math.isclose(sum(value), 1, abs_tol=1e-6):
        raise UserError(f"{where}: {short(value)} must add up to 1, and is {sum(value):g}")


def _range(limits: Mapping[str, float], number: float) -> str:
    """Say the limit that a number does not keep."""
    if limits["below"] < math.inf:
        return f"from {limits['low']} to below {limits['below']}"
    return f"at most {limits['high']}" if number > limits["high"] else f"{limits['low']} or more"


def _check_boards(opt: Section) -> None:
    """Refuse keys of boards' sections that nothing reads: all of them go into the log and onto the board."""
    logger = opt.get("logger")
    for board, kind in (("wandb", Wandb), ("trackio", Trackio)):
        section = logger.get(board) if isinstance(logger, dict) else None
        if section is None:
            continue
        check_section(f"logger.{board}", section, kind, is_train=False)
        names = [field.name for field in dataclasses.fields(kind)]
        for key in section.keys() - names:
            raise UserError(f"logger.{board}.{key} is no option{nearest(key, names)}")
        if board == "trackio":  # which makes a file of it
            _check_plain(f"logger.{board}.project", section.get("project"))


def _check_amp(opt: Section, is_train: bool) -> None:
    """Check the mixed precision of any model; of most of BasicSR's the other options are not known here."""
    for name, kind, is_read in (("train", Train, is_train), ("val", Val, not is_train)):
        section, hint = opt.get(name), _hints(kind)["amp"]
        amp = section.get("amp") if isinstance(section, dict) else None
        if not is_read and name == "val" and amp is not None:
            raise UserError("val.amp is of tests; a training validates as train.amp says: set that")
        if not is_read or amp in (None, "none"):
            continue
        check_types(name, {"amp": amp}, {"amp": hint})
        if opt["model_type"] in SRFLOW_MODELS and amp == "float16":
            raise UserError(f"{name}.amp: float16 is not for {opt['model_type']}; use bfloat16, or leave amp out")
        if opt["model_type"] == "StyleGAN2Model" and is_train:
            raise UserError("train.amp: StyleGAN2Model differentiates within its networks; leave amp out")


def _check_names(opt: Section) -> None:
    """Keep names that become parts of file names in the experiment's folder, or of curves."""
    for name in (opt.get("val") or {}).get("metrics") or {}:
        if len(name) > LONGEST_NAME:
            raise UserError(f"val.metrics.{name:.40}... has more than {LONGEST_NAME} letters; shorten its name")
    names = {"name": opt["name"], "val.suffix": (opt.get("val") or {}).get("suffix")}
    for phase, dataset in opt["datasets"].items():
        names[f"datasets.{phase}.name"] = dataset.get("name") if isinstance(dataset, dict) else None
    for where, name in names.items():
        _check_plain(where, name)


def _check_plain(where: str, name: Any) -> None:
    """Refuse a name that is none of a file."""
    if name is not None:
        if str(name).strip(". ") == "" or set(str(name)) & set("/\\") or not str(name).isprintable():
            raise UserError(f"{where}: {short(name)} must be a plain name, without / and not of dots alone")
        if len(os.fsencode(str(name))) > LONGEST_NAME:
            raise UserError(f"{where}: {short(name)} has more than {LONGEST_NAME} letters; shorten it")


def _check_distinct(datasets: Section) -> None:
    """Refuse two validation sets of one name: their pictures and records would be mixed."""
    seen: dict[str, str] = {}
    for phase, dataset in datasets.items():
        other = None if phase == "train" else seen.setdefault(str(dataset["name"]), phase)
        if other not in (None, phase):
            raise UserError(
                f"datasets.{phase}.name: {short(dataset['name'])} is datasets.{other}'s; give each a name of its own"
            )


def _check_dataset(where: str, dataset: Any, is_train: bool) -> None:
    if not isinstance(dataset, dict):
        raise UserError(f"{where} must be a section with keys such as name, type and dataroot_gt")
    require(where, dataset, ["name", "type"])
    phase = where.rpartition(".")[2].split("_")[0]
    if dataset["type"] == REAL_ESRGAN and not (is_train and phase == "train"):
        raise UserError(
            f"{where}.type: {REAL_ESRGAN} makes no LR images; validate and test on pairs, by PairedImageDataset"
        )
    if is_train and phase not in ("train", "val"):
        raise UserError(f"{where}: in training a data set is called train, val or val_<something>")
    if "io_backend" in dataset:
        check_section(f"{where}.io_backend", dataset["io_backend"], IoBackend, is_train)
        for key in dataset["io_backend"].keys() - {field.name for field in dataclasses.fields(IoBackend)}:
            raise UserError(f"{where}.io_backend.{key} is no option{nearest(key, _hints(IoBackend))}")
    template = dataset.get("filename_tmpl")
    if isinstance(template, str) and not (TEMPLATE.fullmatch(template) and template.isprintable()):
        raise UserError(f"{where}.filename_tmpl: {short(template)} must hold {{}} once, for the HR image's name")
    kind = DATASETS.get(str(dataset["type"]))  # which may be anything in a wrong file
    if kind is not None:
        check_section(where, dataset, kind, is_train and phase == "train")


def _check_degradations(opt: Section, is_train: bool) -> None:
    """Check what is said of degradations on the fly, where a data set asks for them."""
    train = opt["datasets"].get("train") or {}
    names = {field.name for field in dataclasses.fields(Degradations)}
    given = {key: value for key, value in opt.items() if key in names}
    if not is_train or train.get("type") != REAL_ESRGAN:
        check_types("", given, _hints(Degradations))
        return
    check_section("", given, Degradations, is_train)
    check_lists("", given, Degradations)
    check_lists("datasets.train", train, RealESRGANImages)
    if not opt.get("high_order_degradation", True):
        raise UserError(f"high_order_degradation: false is for pairs, and datasets.train.type is {REAL_ESRGAN}")
    if not opt.get("resize_modes", True):
        raise UserError("resize_modes: [] must name one filter or more")
    if (opt.get("train") or {}).get("consistency_opt"):
        raise UserError(f"train.consistency_opt compares with LR images that {REAL_ESRGAN} degrades; leave it out")
    if train.get("gt_size") not in (None, opt["gt_size"]):
        raise UserError(f"gt_size: {opt['gt_size']} and datasets.train.gt_size: {train['gt_size']} must agree")


def _argument_names(source: Path, kind: str) -> list[str]:
    """Read the names of a class's arguments from its source: importing it would import torch."""
    nodes = ast.walk(ast.parse(source.read_text(encoding="utf-8")))
    of_class = next(node for node in nodes if isinstance(node, ast.ClassDef) and node.name == kind)
    functions = (node for node in of_class.body if isinstance(node, ast.FunctionDef))
    constructor = next(function for function in functions if function.name == "__init__")
    return [argument.arg for argument in constructor.args.args[1:]]


def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
