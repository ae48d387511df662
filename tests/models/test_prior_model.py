"""SRFlowPriorModel: the prior alone is trained, for the flow that a file holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from basicsr.models import build_model
from basicsr.utils import set_random_seed
from torch.nn.parallel import DistributedDataParallel

from srflow_plugin import SRFlowNet, SRFlowPriorModel
from srflow_plugin.errors import UserError
from srflow_plugin.options.files import load_options
from srflow_plugin.options.registered import check_registered
from srflow_plugin.options.schema import Section
from srflow_plugin.sampling.draw import draw
from srflow_plugin.training.distributed import leave
from srflow_plugin.training.resume import read_state, resolve_resume
from srflow_plugin.training.setup import load_run
from tests.helpers import (
    TINY,
    image_pair,
    perturb,
    saved_networks,
    small_network,
    train,
    train_model,
    untrained_network,
)

LOSSES = "pixel_opt: {type: L1Loss, loss_weight: 10}"
STEPS = (
    "optim_g: {type: Adam, lr: 1e-2}, scheduler: {type: MultiStepLR, milestones: [4], gamma: 0.5}, "
    "total_iter: 6, ema_decay: 0.5"
)
CHANGES = [
    "model_type=SRFlowPriorModel",
    "network_g.prior_channels=4",
    "path.pretrain_network_g=flow.pth",
    "val.temperature=[0, 0.8, learned]",
]


def changes(*more: str, losses: str = LOSSES) -> list[str]:
    return [*CHANGES, f"train={{{losses}, {STEPS}}}", *more]


@pytest.fixture
def flow(workplace: Path) -> Iterator[dict[str, torch.Tensor]]:
    """The weights of a flow in flow.pth, another one as its mean."""
    network = perturb(untrained_network("flow.pth"), amount=0.02)
    mean = {key: 0.999 * value if key.endswith("weight") else value for key, value in network.state_dict().items()}
    torch.save({"params": network.state_dict(), "params_ema": mean}, "flow.pth")
    yield network.state_dict()


def options(*more: str) -> Section:
    return load_run("tiny.yml", is_train=True, force=changes(*more)).opt


def test_the_prior_alone_is_trained_and_pays(flow: dict[str, torch.Tensor]) -> None:
    model: Any = build_model(options())
    assert SRFlowPriorModel in type(model).__mro__
    _, lq = image_pair(4, 4, 4)
    zero = model.net_g.sample(lq, 0)
    assert torch.equal(model.net_g.sample(lq, "learned"), zero)
    train_model(model, 1, 1)
    first = model.get_current_log()
    assert set(first) == {"l_pix", "l_latent", "grad_norm"} and first["l_latent"] == 0
    train_model(model, 2, 12)
    log = model.get_current_log()
    assert log["l_pix"] < 0.97 * first["l_pix"] and log["l_latent"] > 0
    for net in (model.net_g, model.net_g_ema):
        state = net.state_dict()
        assert all(torch.equal(state[name], value) for name, value in flow.items())
        assert all(value.any() for name, value in state.items() if name.startswith("prior."))
        assert torch.equal(net.sample(lq, 0), zero)
        samples = draw(net, lq, "learned")
        assert samples.exploded == 0 and not torch.equal(samples.images, zero)
    assert {parameter.requires_grad for parameter in model.net_g.flow.parameters()} == {False}


def test_gradients_are_those_of_the_image_that_is_drawn(flow: dict[str, torch.Tensor]) -> None:
    model = build_model(options())
    train_model(model, 1, 2)
    gt, lq = image_pair(4, 4, 4)
    image = model.net_g.sample(lq, "learned")[0]
    model.feed_data({"gt": gt, "lq": lq})
    model.optimize_parameters(3)
    assert model.get_current_log()["l_pix"] == pytest.approx(10 * float((image - gt).abs().mean()), rel=1e-5)
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.net_g.prior.parameters())


def test_the_prior_can_be_trained_to_agree_with_the_lr_image(flow: dict[str, torch.Tensor]) -> None:
    consistency = "consistency_opt: {type: MSELoss, loss_weight: 100}"
    force = changes("datasets.train.gt_size=24", losses=f"{LOSSES}, {consistency}")
    model = build_model(load_run("tiny.yml", is_train=True, force=force).opt)
    gt, lq = image_pair(4, 8, 8)
    logs = []
    for step in range(1, 7):
        model.feed_data({"gt": gt, "lq": lq})
        model.optimize_parameters(step)
        logs.append(model.get_current_log())
    assert {"l_pix", "l_lr"} < set(logs[0]) and logs[-1]["l_lr"] < 0.9 * logs[0]["l_lr"]


def test_a_resumed_run_is_the_same_run(flow: dict[str, torch.Tensor]) -> None:
    opt = options("train.accumulation_steps=2")
    set_random_seed(0)
    whole = build_model(opt)
    train_model(whole, 1, 5)
    set_random_seed(0)
    part = build_model(opt)
    for key in ("models", "training_states"):
        Path(opt["path"][key]).mkdir(parents=True)
    train_model(part, 1, 3)
    part.save(0, 3)
    opt["auto_resume"] = True
    resolve_resume(opt)
    set_random_seed(1)  # of which nothing that is resumed depends
    resumed = build_model(opt)
    resumed.resume_training(read_state(Path(opt["path"]["resume_state"])))
    train_model(resumed, 4, 5)
    for net, other in ((resumed.net_g, whole.net_g), (resumed.net_g_ema, whole.net_g_ema)):
        for name, value in net.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    assert not torch.equal(resumed.net_g_ema.prior.first.weight, resumed.net_g.prior.first.weight)


@pytest.mark.slow
def test_processes_sum_the_gradients_of_the_prior(flow: dict[str, torch.Tensor], tmp_path: Path) -> None:
    opt = options("train.accumulation_steps=2")
    set_random_seed(0)
    alone = build_model(opt)
    train_model(alone, 1, 3)
    meeting = f"file://{tmp_path}/meeting"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=0, world_size=1)
    try:
        set_random_seed(0)
        shared = build_model({**opt, "dist": True})
        assert isinstance(shared.trained, DistributedDataParallel)
        assert shared.trained.module is shared.net_g.prior
        train_model(shared, 1, 3)
        for name, value in shared.net_g.state_dict().items():
            assert torch.equal(value, alone.net_g.state_dict()[name]), name
        del shared
    finally:
        leave()


@pytest.mark.slow
def test_an_option_file_trains_validates_and_is_tested(flow: dict[str, torch.Tensor]) -> None:
    assert train(*changes("path.param_key_g=params_ema", "train.total_iter=2"), "name=prior") == 0
    networks = saved_networks("prior")
    mean = torch.load("flow.pth", weights_only=True)["params_ema"]
    for weights in networks.values():
        assert all(torch.equal(weights[name], value) for name, value in mean.items())
    pictures = {path.name for path in Path("experiments/prior/visualization/0").iterdir()}
    assert pictures == {f"0_2_{way}.png" for way in ("tau0", "tau0.8_0", "tau0.8_1", "taulearned", "bicubic", "grid")}
    log = next(Path("experiments/prior").glob("train_*.log")).read_text()
    assert "psnr_taulearned" in log


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["network_g.prior_channels=0"], "network_g.prior_channels is missing: the width of the prior"),
        (["path.pretrain_network_g=~"], "path.pretrain_network_g is missing: name the network, such as srflow_x4"),
        ([f"train={{{STEPS}}}"], "train.pixel_opt and train.perceptual_opt are missing"),
        (["train.optim_g.lr_encoder=1"], "train.optim_g.lr_encoder is no option of Adam"),
        (["datasets.train.gt_size=12"], "datasets.train.gt_size: 12 must be a multiple of 8"),
    ],
)  # fmt: skip
def test_what_a_prior_lacks_is_named(more: list[str], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        check_registered(load_options(TINY, changes(*more)), is_train=True)


@pytest.mark.parametrize("temperature", ["learned", "[0, learned]"])
def test_a_network_without_a_prior_is_not_validated_with_one(temperature: str) -> None:
    with pytest.raises(UserError, match=r"val\.temperature: learned is of a network with a learned prior"):
        check_registered(load_options(TINY, [f"val.temperature={temperature}"]), is_train=True)


def test_options_of_the_nll_are_none_of_the_prior(workplace: Path) -> None:
    untrained_network("flow.pth")
    with pytest.raises(UserError, match=r"train\.nll_opt is no option"):
        options("train.nll_opt={type: NLLLoss}")


def network_with_prior() -> SRFlowNet:
    """Write the network of tiny.yml with a prior into flow.pth."""
    arguments: dict[str, Any] = {key: value for key, value in load_options(TINY)["network_g"].items() if key != "type"}
    network = small_network(**{**arguments, "prior_channels": 5})
    torch.save({"params": network.state_dict()}, "flow.pth")
    return network


def test_a_network_without_a_prior_begins_with_the_flow_of_one_that_has_one(workplace: Path) -> None:
    weights = network_with_prior().state_dict()
    opt = load_run("tiny.yml", is_train=True, force=["path.pretrain_network_g=flow.pth"]).opt
    model: Any = build_model(opt)
    own = model.net_g.state_dict()
    assert set(weights) - set(own) == {name for name in weights if name.startswith("prior.")}
    assert all(torch.equal(weights[name], value) for name, value in own.items())


def test_a_prior_of_another_width_does_not_fit(workplace: Path) -> None:
    network_with_prior()
    with pytest.raises(UserError, match=r"flow\.pth does not fit network_g: prior\.first\.weight is \[5,"):
        options()
