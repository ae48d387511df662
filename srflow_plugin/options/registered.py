"""Mistakes in an option file that BasicSR's registries show: unknown classes, their arguments, and what must agree."""

from __future__ import annotations

import inspect
import typing
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

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
from srflow_plugin.errors import UserError, nearest, short
from srflow_plugin.images.resize import MARGIN
from srflow_plugin.metrics.objects import find_metric, settle_better
from srflow_plugin.metrics.samples import measure
from srflow_plugin.metrics.variants import make_val_variants
from srflow_plugin.options.check import REAL_ESRGAN, check_types, require
from srflow_plugin.options.schema import REAL_ESRGAN_SIDE, SRFLOW_MODELS, Metric, Section, SRFlowVal, read
from srflow_plugin.options.types import conforms, describe, join, make_whole
from srflow_plugin.sampling.temperature import is_learned

HANDED_TO_METRICS = ("img", "img2", "lq", "code_length", "better")  # by the model, not by the file
TRIED_SIZE = (240, 240)  # a multiple of every scale
OWN_SUFFIX = "_basicsr"
SCHEDULERS: Mapping[str, Callable[..., Any]] = {
    "MultiStepLR": lr_scheduler.MultiStepRestartLR,
    "MultiStepRestartLR": lr_scheduler.MultiStepRestartLR,
    "CosineAnnealingRestartLR": lr_scheduler.CosineAnnealingRestartLR,
}


def check_registered(opt: Section, is_train: bool) -> None:
    """Check the classes that a file names, and the arguments that it gives them. Follows :func:`check_file`.

    Raises:
        UserError: the first mistake, with what would be right.
    """
    model_type = opt["model_type"]
    registered("model_type", model_type, MODEL_REGISTRY)
    if opt["network_g"].get("type") == "SRFlowNet":
        make_whole(opt["network_g"], typing.get_type_hints(SRFlowNet.__init__))
    if registered_section("network_g", opt["network_g"], ARCH_REGISTRY) is SRFlowNet:
        build_network(opt)
    for phase, dataset in opt["datasets"].items():
        registered(f"datasets.{phase}.type", dataset["type"], DATASET_REGISTRY)
    for name, metric in ((opt.get("val") or {}).get("metrics") or {}).items():
        _check_metric(f"val.metrics.{name}", metric, model_type)
    if is_train:
        _check_training(opt["train"], model_type)
    if model_type in SRFLOW_MODELS:
        _check_srflow(opt, is_train)


def build_network(opt: Section) -> SRFlowNet:
    """Build the SRFlowNet of ``network_g`` without memory."""
    arguments = {key: value for key, value in opt["network_g"].items() if key != "type"}
    try:
        with torch.device("meta"):
            return SRFlowNet(**arguments)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"network_g: {error}") from None


def _check_metric(where: str, metric: Any, model_type: str) -> None:
    own = ("over",) if model_type in SRFLOW_MODELS else ()
    require(where, metric, ["type"])
    if "." in str(metric["type"]):
        try:
            find_metric(metric["type"])
        except UserError as error:
            raise UserError(f"{where}.type: {error}") from error
    registered_section(where, metric, METRIC_REGISTRY, given=(*HANDED_TO_METRICS, *own))
    hints = typing.get_type_hints(Metric)
    for key in (*own, "better"):
        if key in metric and not conforms(metric[key], hints[key]):
            raise UserError(f"{where}.{key}: {short(metric[key])} is not {describe(hints[key])}")
    # Metrics say nothing about the types of their options: better now than after the first hours of training.
    try:
        if "." in metric["type"]:
            settle_better(metric)
        try_metric(metric, model_type, *TRIED_SIZE)
    except Exception as error:
        raise UserError(f"{where} cannot be computed: {' '.join(str(error).split()) or repr(error)}") from error


def try_metric(metric: Section, model_type: str, height: int, width: int) -> None:
    """Compute a metric on images of that size, whatever it raises."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NIQE's, of images that are too small
        measure([image, image[:, ::-1]], image[::-1], None, metric, 0.0 if model_type in SRFLOW_MODELS else None)


def _check_training(train_opt: Section, model_type: str) -> None:
    for key in ("nll_opt", "pixel_opt", "perceptual_opt", "consistency_opt"):
        if train_opt.get(key):
            registered_section(f"train.{key}", train_opt[key], LOSS_REGISTRY)
    scheduler = known("train.scheduler.type", train_opt["scheduler"]["type"], SCHEDULERS)
    check_arguments("train.scheduler", train_opt["scheduler"], SCHEDULERS[scheduler], given=("type", "optimizer"))
    _check_schedule(train_opt, SCHEDULERS[scheduler])
    optimizers = {name: kind for name, kind in vars(torch.optim).items() if inspect.isclass(kind)}
    optimizer = known("train.optim_g.type", train_opt["optim_g"]["type"], optimizers)
    given = ("type", "params", *(["lr_encoder"] if model_type == "SRFlowModel" else []))
    check_arguments("train.optim_g", train_opt["optim_g"], optimizers[optimizer], given)
    check_types("train.optim_g", train_opt["optim_g"], {"lr": float, "lr_encoder": float})


def _check_schedule(train_opt: Section, kind: Callable[..., Any]) -> None:
    """Build the schedule of one parameter; BasicSR's cosines end where their periods do."""
    arguments = _arguments(train_opt["scheduler"])
    try:
        kind(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), **arguments)
        periods = sum(arguments.get("periods", []))
    except Exception as error:
        raise UserError(f"train.scheduler: {' '.join(str(error).split()) or repr(error)}") from None
    if "periods" in arguments and periods < train_opt["total_iter"] - 1:
        raise UserError(
            f"train.scheduler.periods: {arguments['periods']} are {periods} iterations together, train.total_iter is "
            f"{train_opt['total_iter']}; add a period, or lengthen one"
        )


def _check_srflow(opt: Section, is_train: bool) -> None:
    """Check what the models of this project ask for beyond their keys."""
    network, path = inspect.signature(SRFlowNet).bind(**_arguments(opt["network_g"])), opt["path"]
    network.apply_defaults()
    scale = network.arguments["scale"]
    if path.get("pretrain_network_g") and path.get("pretrain_network_encoder"):
        raise UserError("path.pretrain_network_g holds an encoder, too; leave path.pretrain_network_encoder out")
    if opt.get("scale") != scale:
        raise UserError(f"scale: {opt.get('scale')} and network_g.scale: {scale} must agree")
    if is_train:
        _check_batches(opt, max(scale, 2 ** network.arguments["num_levels"]))
    elif not path.get("pretrain_network_g"):
        raise UserError("path.pretrain_network_g is missing: name the checkpoint to test")
    if is_train and opt["model_type"] == "SRFlowPriorModel":
        _check_prior(opt)
    val = read(SRFlowVal, opt.get("val"))
    if not val.temperatures:
        raise UserError("val.temperature: [] must be one number or a list of some")
    if any(map(is_learned, val.temperatures)) and not network.arguments["prior_channels"]:
        raise UserError("val.temperature: learned is of a network with a learned prior: set network_g.prior_channels")
    best = opt["logger"].get("keep_best") if is_train else None
    if best is not None:
        variants = make_val_variants(val.temperatures, val.bicubic, val.metrics or {})
        metrics = [name for variant in variants for name in variant.metrics]
        known("logger.keep_best", best, metrics)


def _check_prior(opt: Section) -> None:
    """Check that there is a prior to train, a flow to train it for, and a loss."""
    if not opt["network_g"].get("prior_channels"):
        raise UserError("network_g.prior_channels is missing: the width of the prior that is trained, such as 32")
    if not opt["path"].get("pretrain_network_g"):
        raise UserError("path.pretrain_network_g is missing: name the network, such as srflow_x4, that gets a prior")
    if not (opt["train"].get("pixel_opt") or opt["train"].get("perceptual_opt")):
        raise UserError("train.pixel_opt and train.perceptual_opt are missing: SRFlowPriorModel needs one, or both")


def _check_batches(opt: Section, multiple: int) -> None:
    """Check that patches suit the network, and parts of batches the losses."""
    dataset, steps = opt["datasets"]["train"], opt["train"].get("accumulation_steps", 1)
    if dataset["type"] == REAL_ESRGAN:
        if opt["gt_size"] % multiple:
            raise UserError(f"gt_size: {opt['gt_size']} must be a multiple of {multiple}")
        if REAL_ESRGAN_SIDE % opt["scale"]:
            raise UserError(f"scale: the images of {REAL_ESRGAN}, {REAL_ESRGAN_SIDE} a side, must be a multiple of it")
    if isinstance(dataset.get("gt_size"), int) and dataset["gt_size"] % multiple:
        raise UserError(f"datasets.train.gt_size: {dataset['gt_size']} must be a multiple of {multiple}")
    least = 2 * MARGIN * opt["scale"]
    if opt["train"].get("consistency_opt") and isinstance(dataset.get("gt_size"), int) and dataset["gt_size"] <= least:
        raise UserError(f"datasets.train.gt_size: {dataset['gt_size']} must be above {least} for train.consistency_opt")
    if isinstance(dataset.get("batch_size_per_gpu"), int) and dataset["batch_size_per_gpu"] % steps:
        raise UserError(
            f"train.accumulation_steps: {steps} must divide datasets.train.batch_size_per_gpu, "
            f"{dataset['batch_size_per_gpu']}"
        )


# -- classes and their arguments ---------------------------------------------------------------------------------------


def registered_section(where: str, section: Any, registry: Registry, given: Sequence[str] = ()) -> Callable[..., Any]:
    """Check a section with a ``type`` from a registry and that class's keyword arguments; return the class."""
    require(where, section, ["type"])
    kind = registered(f"{where}.type", section["type"], registry)
    check_arguments(where, section, kind, given=("type", *given))
    return kind


def registered(where: str, name: Any, registry: Registry) -> Callable[..., Any]:
    """Look a class up by its name; BasicSR's own variants of another package's classes have a suffix."""
    names = [own.removesuffix(OWN_SUFFIX) for own, _ in registry]
    full_name = known(where, name, names)
    kind: Callable[..., Any] = registry.get(full_name if full_name in registry else full_name + OWN_SUFFIX)
    return kind


def known(where: str, name: Any, names: Iterable[str]) -> str:
    """Refuse a name that is not among those that are known."""
    names = list(names)
    if name not in names:
        raise UserError(f"{where}: {short(name)} is not known{nearest(name, names)}")
    return str(name)


def check_arguments(
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
                raise UserError(f"{join(where, key)} is no option of {function.__name__}{nearest(key, parameters)}")
    for name, parameter in parameters.items():
        optional = parameter.default is not parameter.empty
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and not optional and name not in arguments:
            raise UserError(f"{join(where, name)} is missing")
    owner: Any = function.__init__ if inspect.isclass(function) else function
    check_types(where, arguments, typing.get_type_hints(owner) if owner.__module__.startswith("srflow_plugin") else {})


def _arguments(section: Section) -> Section:
    return {key: value for key, value in section.items() if key != "type"}
