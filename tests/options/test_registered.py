"""Mistakes that BasicSR's registries show: classes, their arguments, and what must agree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from basicsr.utils.registry import LOSS_REGISTRY, METRIC_REGISTRY

from srflow_plugin.errors import UserError
from srflow_plugin.options.files import load_options
from srflow_plugin.options.registered import build_network, check_arguments, check_registered
from srflow_plugin.options.schema import Section
from srflow_plugin.training.setup import load_run
from tests.helpers import TINY

COSINE = "train.scheduler={{type: CosineAnnealingRestartLR, periods: {}, restart_weights: {}}}"


def tiny(*changes: str) -> Section:
    return load_options(TINY, changes)


def test_a_test_needs_a_checkpoint(workplace: Path) -> None:
    with pytest.raises(UserError, match="name the checkpoint to test"):
        load_run("tiny.yml", is_train=False)


def test_options_of_other_models_are_left_to_them(workplace: Path) -> None:
    opt = yaml.safe_load(Path("tiny.yml").read_text())
    opt["model_type"] = "ESRGANModel"
    opt["network_d"] = {"type": "VGGStyleDiscriminator"}
    opt["train"]["gan_opt"] = {"type": "GANLoss"}
    Path("tiny.yml").write_text(yaml.safe_dump(opt))
    assert load_run("tiny.yml", is_train=True).opt["network_d"] == {"type": "VGGStyleDiscriminator"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["path.pretrain_network_g=a", "path.pretrain_network_encoder=b"], "path.pretrain_network_g holds an encoder"),
        (["val.temperature=[]"], r"val.temperature: \[\] must be one number or a list of some"),
        (["datasets.train.batch_size_per_gpu=3", "train.accumulation_steps=2"], "train.accumulation_steps: 2 must"),
        (["train.total_iter=8", COSINE.format("[3, 2]", "[1, 1]")], r"train.scheduler.periods: \[3, 2\] are 5 it"),
        ([COSINE.format("[300, 2]", "[1]")], "train.scheduler: periods and restart_weights should have the same"),
        ([COSINE.format("6", "[1]")], "train.scheduler: "),
        (["train.scheduler={type: MultiStepLR, milestones: 5}"], "train.scheduler: "),
        (["val.metrics.new={type: calculate_nll, over: all}"], "val.metrics.new.over: 'all' is not mean or best or"),
        (["train.optim_g.lr_encoder=slow"], "train.optim_g.lr_encoder: 'slow' is not a number"),
        (["val.metrics.new=5"], "val.metrics.new must be a section with keys"),
        (["network_g={type: RRDBNet, num_in_ch: 3}"], "network_g.num_out_ch is missing"),
    ],
)  # fmt: skip
def test_what_does_not_agree_is_named(changes: list[str], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        check_registered(tiny(*changes), is_train=True)


def test_the_best_metric_is_one_that_the_log_has() -> None:
    check_registered(tiny("logger.keep_best=psnr_bicubic"), is_train=True)
    check_registered(tiny("logger.keep_best=psnr", "val.temperature=0.5"), is_train=True)
    with pytest.raises(UserError, match=r"logger\.keep_best: 'psnr_tau0' is not known; did you mean psnr"):
        check_registered(tiny("logger.keep_best=psnr_tau0", "val.temperature=0.5"), is_train=True)


def test_whole_numbers_of_the_network_may_be_written_as_floats(workplace: Path) -> None:
    opt = load_run("tiny.yml", is_train=True, force=["network_g.num_block=2.0", "network_g.hidden_channels=8e0"]).opt
    assert str(opt["network_g"]["num_block"]) == "2" and str(opt["network_g"]["hidden_channels"]) == "8"


def test_networks_are_built_without_memory() -> None:
    network = build_network(tiny("network_g.hidden_channels=4096", "network_g.num_steps=16"))
    assert all(parameter.is_meta for parameter in network.parameters())
    with pytest.raises(UserError, match=r"network_g: .*num_levels must be at least 2"):
        build_network(tiny("network_g.num_levels=1"))


@pytest.fixture
def of_a_plugin() -> Iterator[None]:
    """A loss and a metric as a plugin registers them."""

    class PluginLoss(torch.nn.Module):
        def __init__(self, weight: int, **anything: Any) -> None:
            super().__init__()

    def calculate_plugin(img: Any, img2: Any, power: int, **kwargs: Any) -> float:
        return float(abs(img.astype(float) - img2).mean() ** power)

    LOSS_REGISTRY.register(PluginLoss)
    METRIC_REGISTRY.register(calculate_plugin)
    yield
    del LOSS_REGISTRY._obj_map["PluginLoss"], METRIC_REGISTRY._obj_map["calculate_plugin"]


@pytest.mark.usefixtures("of_a_plugin")
def test_classes_of_plugins_are_asked_for_their_arguments_alone() -> None:
    theirs = "train.nll_opt={type: PluginLoss, weight: a, theirs: 1}"  # they settle types and further keys themselves
    check_registered(tiny(theirs, "val.metrics.new={type: calculate_plugin, power: 2}"), is_train=True)
    with pytest.raises(UserError, match=r"train\.nll_opt\.weight is missing"):
        check_registered(tiny("train.nll_opt={type: PluginLoss, theirs: 1}"), is_train=True)
    with pytest.raises(UserError, match=r"val\.metrics\.new\.power is missing"):
        check_registered(tiny("val.metrics.new={type: calculate_plugin}"), is_train=True)
    with pytest.raises(UserError, match=r"val\.metrics\.new cannot be computed: .*power"):
        check_registered(tiny("val.metrics.new={type: calculate_plugin, power: x}"), is_train=True)


def test_arguments_of_a_function() -> None:
    def function(first: int, second: int = 0) -> None: ...

    check_arguments("here", {"type": "function", "first": 1}, function)
    check_arguments("here", {"second": 1}, function, given=("first",))
    with pytest.raises(UserError, match=r"here\.secnod is no option of function; did you mean second\?"):
        check_arguments("here", {"first": 1, "secnod": 1}, function)
    with pytest.raises(UserError, match=r"here\.first is missing"):
        check_arguments("here", {}, function)
