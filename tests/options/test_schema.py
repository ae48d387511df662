"""Every option: it is documented, has a range, is read, and its wrong values are refused."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest

from srflow_plugin.errors import UserError
from srflow_plugin.options import schema
from srflow_plugin.options.check import check_file
from srflow_plugin.options.files import load_options
from srflow_plugin.options.schema import Logger, PairedImages, Section, SRFlowPaths, SRFlowTrain, SRFlowVal, read
from srflow_plugin.options.types import conforms
from tests.helpers import ROOT, TINY

KINDS: list[Any] = [kind for kind in vars(schema).values() if dataclasses.is_dataclass(kind)]
FIELDS = [(kind, field) for kind in KINDS for field in dataclasses.fields(kind)]
SECTIONS: dict[str, type] = {
    "train": SRFlowTrain,
    "val": SRFlowVal,
    "logger": Logger,
    "datasets.train": PairedImages,
}
WITHOUT_A_RANGE = {
    "train.warmup_iter",
    "datasets.train.num_prefetch_queue",
    "datasets.train.mean",
    "datasets.train.std",
}


def numbers() -> Iterator[tuple[str, Any]]:
    """List the options whose values are numbers, by their names in messages."""
    for where, kind in SECTIONS.items():
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            types = {hints[field.name], *get_args(hints[field.name])}
            if types & {int, float, list[float]}:
                yield f"{where}.{field.name}", field


NUMBERS = dict(numbers())


def with_value(name: str, value: Any) -> Section:
    """Change one option of tiny.yml."""
    opt = section = load_options(TINY)
    *parents, key = name.split(".")
    for parent in parents:
        section = section[parent]
    section[key] = value
    return opt


def outside(field: Any) -> list[float]:
    """List numbers that are just outside an option's range."""
    limits = field.metadata
    values = [limits["low"] - 1, limits["high"] + 1, limits["below"]]
    return [value for value in values if math.isfinite(value)]


@pytest.mark.parametrize(("kind", "field"), FIELDS, ids=[f"{kind.__name__}.{field.name}" for kind, field in FIELDS])
def test_every_option_has_a_sentence_and_a_default_of_its_type(kind: Any, field: Any) -> None:
    assert len(field.metadata["sentence"].split()) >= 2
    if field.default is not dataclasses.MISSING:
        assert conforms(field.default, get_type_hints(kind)[field.name])


@pytest.mark.parametrize("name", NUMBERS)
def test_a_value_that_is_no_number_is_refused(name: str) -> None:
    for value in ("text", True, {"a": 1}, ["text"]):
        with pytest.raises(UserError) as refusal:
            check_file(with_value(name, value), is_train=True)
        assert str(refusal.value).startswith(f"{name}: {value!r} is not ")


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_out_of_range_is_refused(name: str) -> None:
    values = outside(NUMBERS[name])
    assert (values == []) == (name in WITHOUT_A_RANGE)
    for value in values:
        with pytest.raises(UserError) as refusal:
            check_file(with_value(name, value), is_train=True)
        assert str(refusal.value).startswith(f"{name}: {value} must be ")


@pytest.mark.parametrize("name", NUMBERS)
def test_the_ends_of_a_range_are_taken(name: str) -> None:
    limits = NUMBERS[name].metadata
    for value in (limits["low"], limits["high"]):
        if math.isfinite(value):
            check_file(with_value(name, value), is_train=True)


def test_a_list_has_the_range_of_its_numbers() -> None:
    check_file(with_value("val.temperature", [0, 0.8]), is_train=True)
    with pytest.raises(UserError, match=r"val\.temperature: \[0, -0\.1\] must be 0 or more"):
        check_file(with_value("val.temperature", [0, -0.1]), is_train=True)


@pytest.mark.parametrize(("name", "value"), [("val.temperature", math.nan), ("train.ema_decay", math.nan)])
def test_what_is_not_a_number_is_in_no_range(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"{name}: nan must be"):
        check_file(with_value(name, value), is_train=True)


def test_sections_are_read() -> None:
    val = read(SRFlowVal, {"temperature": 0.5, "save_img": True, "of_a_plugin": 1})
    assert (val.temperatures, val.save_img, val.num_samples, val.tile, val.resample) == ([0.5], True, 1, None, None)
    assert read(SRFlowVal, None) == SRFlowVal()
    assert read(SRFlowVal, {"temperature": [0.9, 0]}).temperatures == [0.9, 0]
    paths = read(SRFlowPaths, {"pretrain_network_g": "a.pth", "models": "folder"})
    assert (paths.pretrain_network_g, paths.param_key_g, paths.strict_load_g) == ("a.pth", "params", True)
    train = read(SRFlowTrain, {"total_iter": 1, "optim_g": {}, "scheduler": {}, "nll_opt": {"type": "NLLLoss"}})
    assert (train.grad_clip, train.accumulation_steps, train.max_skipped_steps) == (math.inf, 1, 10)
    with pytest.raises(TypeError, match="nll_opt"):
        read(SRFlowTrain, {"total_iter": 1, "optim_g": {}, "scheduler": {}})
    with pytest.raises(dataclasses.FrozenInstanceError):
        train.total_iter = 2  # type: ignore[misc]


def test_every_option_of_the_quick_file_is_known() -> None:
    opt = load_options(ROOT / "options" / "train_SRFlow_x4_quick.yml")
    sections = {"": opt, **{where: opt[where] for where in ("path", "train", "val", "logger")}}
    kinds = {"": schema.TopLevel, **schema.SECTIONS["SRFlowModel"]}
    for phase, dataset in opt["datasets"].items():
        sections[phase], kinds[phase] = dataset, PairedImages
        sections[f"{phase} files"], kinds[f"{phase} files"] = dataset["io_backend"], schema.IoBackend
    assert sections.keys() == kinds.keys()
    for where, section in sections.items():
        assert section and set(section) <= {field.name for field in dataclasses.fields(kinds[where])}, where
