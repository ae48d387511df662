"""SRFlowModel: what one training step and a checkpoint do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import basicsr.archs.vgg_arch
import numpy as np
import pytest
import torch
import torchvision
from basicsr.models import build_model
from basicsr.utils import set_random_seed

from srflow_plugin import SRFlowModel, bicubic_downscale
from srflow_plugin.errors import TrainingError
from srflow_plugin.images.resize import differentiable_downscale
from srflow_plugin.images.tensors import to_tensor
from srflow_plugin.options.schema import Section
from srflow_plugin.training.resume import read_state, resolve_resume
from tests.helpers import image_pair, model_batch, train_model


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def test_a_step_initialises_trains_and_logs(tiny_options: Section) -> None:
    model = build_model(tiny_options)
    assert isinstance(model, SRFlowModel)
    assert not model.net_g.initialized
    before = weights(model.net_g)
    train_model(model, 1, 1)
    assert model.net_g.initialized and model.net_g_ema.initialized
    # zero-initialised convolutions let gradients through to what lies before them only from the second step on
    train_model(model, 2, 2)
    still = [name for name, value in weights(model.net_g).items() if torch.equal(value, before[name])]
    assert still == []
    log = model.get_current_log()
    assert log["l_nll"] == pytest.approx(log["l_prior"] + log["l_logdet"], rel=1e-5)
    assert log["grad_norm"] > 0
    assert not any(name.startswith("lr") for name in log)  # BasicSR's lines have them


def test_options_are_those_of_the_schema(tiny_options: Section) -> None:
    tiny_options["train"].update(accumulation_steps=2, ema_decay=0)
    model = build_model(tiny_options)
    assert (model.train_options.accumulation_steps, model.train_options.max_skipped_steps) == (2, 10)
    assert model.paths.param_key_g == "params" and model.val_options.temperatures == [0, 0.8]
    assert not hasattr(model, "net_g_ema") and model.val_network() is model.net_g


@pytest.mark.slow
def test_nll_falls(tiny_options: Section) -> None:
    model = build_model(tiny_options)
    train_model(model, 1, 1)
    first = model.get_current_log()["l_nll"]
    train_model(model, 2, 30)
    assert model.get_current_log()["l_nll"] < first - 0.5


def test_optimizer_is_the_one_asked_for(tiny_options: Section) -> None:
    tiny_options["train"]["optim_g"].update(lr_encoder=2e-4, weight_decay=0.01, type="AdamW")
    model = build_model(tiny_options)
    flow, encoder = model.optimizer_g.param_groups
    assert isinstance(model.optimizer_g, torch.optim.AdamW)
    assert (flow["name"], flow["lr"], encoder["name"], encoder["lr"]) == ("flow", 1e-3, "encoder", 2e-4)
    assert tuple(flow["betas"]) == tuple(encoder["betas"]) == (0.9, 0.99)
    assert flow["weight_decay"] == 0.01
    names = {id(parameter): name for name, parameter in model.net_g.named_parameters()}
    assert {names[id(parameter)].split(".")[0] for parameter in flow["params"]} == {"flow"}
    assert {names[id(parameter)].split(".")[0] for parameter in encoder["params"]} == {"encoder"}
    assert len(flow["params"]) + len(encoder["params"]) == len(names)


def test_frozen_encoder_does_not_move_by_one_bit_and_then_does(tiny_options: Section) -> None:
    tiny_options["train"]["freeze_encoder_iters"] = 3
    model = build_model(tiny_options)
    start = weights(model.net_g.encoder)
    flow_start = weights(model.net_g.flow)
    train_model(model, 1, 3)
    assert all(torch.equal(value, start[name]) for name, value in weights(model.net_g.encoder).items())
    assert not any(torch.equal(value, flow_start[name]) for name, value in weights(model.net_g.flow).items())
    train_model(model, 4, 4)
    assert not any(torch.equal(value, start[name]) for name, value in weights(model.net_g.encoder).items())


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [2, 3])
def test_a_resumed_run_is_the_same_run_across_the_switch(tiny_options: Section, stop_after: int) -> None:
    tiny_options["network_g"]["noise"] = "none"
    tiny_options["train"]["freeze_encoder_iters"] = 3
    set_random_seed(tiny_options["manual_seed"])
    whole = build_model(tiny_options)
    train_model(whole, 1, 5)

    set_random_seed(tiny_options["manual_seed"])  # the same start
    part = build_model(tiny_options)
    for key in ("models", "training_states"):
        Path(tiny_options["path"][key]).mkdir(parents=True)
    train_model(part, 1, stop_after)
    part.save(0, stop_after)
    tiny_options["auto_resume"] = True
    resolve_resume(tiny_options)
    resumed = build_model(tiny_options)
    resumed.resume_training(read_state(Path(tiny_options["path"]["resume_state"])))
    train_model(resumed, stop_after + 1, 5)

    for name, value in resumed.net_g.state_dict().items():
        assert torch.equal(value, whole.net_g.state_dict()[name]), name
    for name, value in resumed.net_g_ema.state_dict().items():
        assert torch.equal(value, whole.net_g_ema.state_dict()[name]), name
    assert resumed.get_current_learning_rate() == whole.get_current_learning_rate() == [2.5e-4, 2.5e-4]
    state_of = resumed.optimizer_g.state
    steps = {group["name"]: state_of[group["params"][0]]["step"] for group in resumed.optimizer_g.param_groups}
    assert steps == {"flow": 5, "encoder": 2}


@pytest.mark.slow
def test_the_tau_0_image_has_the_losses_asked_for(tiny_options: Section, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(basicsr.archs.vgg_arch.vgg, "vgg11", lambda pretrained: torchvision.models.vgg11(weights=None))
    gradients = {}
    for weight in (0, 3):
        set_random_seed(0)
        if weight:
            tiny_options["train"]["pixel_opt"] = {"type": "L1Loss", "loss_weight": weight}
            layers = {"relu1_1": 1.0}
            tiny_options["train"]["perceptual_opt"] = {
                "type": "PerceptualLoss",
                "vgg_type": "vgg11",
                "layer_weights": layers,
            }
        model = build_model(tiny_options)
        train_model(model, 1, 2)
        model.feed_data(model_batch())
        with torch.no_grad():
            image = model.net_g.sample(model.lq, temperature=0)[0]
        model.optimize_parameters(3)
        gradients[weight] = model.net_g.encoder.conv_first.weight.grad.clone()
    log = model.get_current_log()
    assert log["l_pix"] == pytest.approx(3 * (image - model.gt).abs().mean().item(), rel=1e-5)
    assert log["l_percep"] > 0 and "l_style" not in log
    assert log["l_nll"] == pytest.approx(log["l_prior"] + log["l_logdet"], rel=1e-5)
    assert not torch.allclose(gradients[0], gradients[3])


def test_consistency_is_of_what_a_patch_alone_decides(tiny_options: Section) -> None:
    photograph = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    patches = [np.s_[8:40, 16:48], np.s_[24:56, 0:32]]
    small = bicubic_downscale(photograph, 4)
    gt = torch.stack([to_tensor(photograph[patch])[0] for patch in patches])
    lq = torch.stack([to_tensor(small[tuple(slice(s.start // 4, s.stop // 4) for s in patch)])[0] for patch in patches])
    tiny_options["train"]["consistency_opt"] = {"type": "L1Loss", "loss_weight": 3}
    tiny_options["train"]["accumulation_steps"] = 2
    model = build_model(tiny_options)
    # The image itself is consistent with its LR image, to the rounding of the latter; its border would not be.
    rounding = 1 / 255
    assert model.image_losses(gt, gt, lq)["l_lr"] < 3 / 2 * rounding
    assert (differentiable_downscale(gt, 4) - lq).abs().max() > 5 * rounding

    model.feed_data({"gt": gt, "lq": lq, "gt_path": ["a", "b"]})
    train_model(model, 1, 1)
    model.feed_data({"gt": gt, "lq": lq, "gt_path": ["a", "b"]})
    with torch.no_grad():
        image = model.net_g.sample(model.lq, temperature=0)[0]
    model.optimize_parameters(2)
    apart = (differentiable_downscale(image, 4) - lq)[..., 2:-2, 2:-2].abs().mean().item()
    assert model.get_current_log()["l_lr"] == pytest.approx(3 * apart, rel=1e-4)


@pytest.mark.parametrize(
    "setting",
    [
        {"log_scale_bound": 1.2},
        {"num_steps": 2, "num_levels": 2, "coupling_layers": 4, "coupling_kernel_size": 3},
        {"noise": "conditional"},
        pytest.param({"precision": "bfloat16"}, marks=pytest.mark.slow),
    ],
)
def test_options_beyond_the_paper_train(tiny_options: Section, setting: dict[str, Any]) -> None:
    tiny_options["network_g"].update(setting)
    model = build_model(tiny_options)
    train_model(model, 1, 1)
    first = model.get_current_log()["l_nll"]
    train_model(model, 2, 30)
    assert model.get_current_log()["l_nll"] < first - 0.5


def test_gradients_are_clipped(tiny_options: Section) -> None:
    tiny_options["train"]["grad_clip"] = 1e-3
    model = build_model(tiny_options)
    train_model(model, 1, 1)
    norm = torch.stack([p.grad.norm() for p in model.net_g.parameters() if p.grad is not None]).norm()
    assert norm <= 1.01e-3 < model.get_current_log()["grad_norm"]


@pytest.mark.slow
def test_ema_follows(tiny_options: Section) -> None:
    model = build_model(tiny_options)
    train_model(model, 1, 1)
    for first, decay in ((2, 3 / 12), (3, 4 / 13), (4, 5 / 14)):
        before = weights(model.net_g_ema)
        train_model(model, first, first)
        for name, value in model.net_g_ema.named_parameters():
            torch.testing.assert_close(value, decay * before[name] + (1 - decay) * weights(model.net_g)[name])
    train_model(model, 5, 20)
    before = weights(model.net_g_ema)
    train_model(model, 21, 21)  # from iteration 8 on it is the option's
    for name, value in model.net_g_ema.named_parameters():
        torch.testing.assert_close(value, 0.5 * before[name] + 0.5 * weights(model.net_g)[name])


def test_initialisation_is_remembered_by_the_checkpoint(tiny_options: Section) -> None:
    model = build_model(tiny_options)
    train_model(model, 1, 2)
    Path(tiny_options["path"]["models"]).mkdir(parents=True)
    Path(tiny_options["path"]["training_states"]).mkdir(parents=True)
    model.save(0, 2)
    tiny_options["path"]["pretrain_network_g"] = str(Path(tiny_options["path"]["models"]) / "net_g_2.pth")
    again = build_model(tiny_options)
    assert again.net_g.initialized
    for name, value in again.net_g.state_dict().items():
        assert torch.equal(value, model.net_g.state_dict()[name]), name
    for name, value in again.net_g_ema.state_dict().items():
        assert torch.equal(value, model.net_g_ema.state_dict()[name]), name


def test_a_step_that_is_not_finite_is_skipped(tiny_options: Section) -> None:
    tiny_options["train"]["max_skipped_steps"] = 3
    Path(tiny_options["path"]["experiments_root"]).mkdir(parents=True)
    model = build_model(tiny_options)
    gt, lq = image_pair(4, 4, 4)
    good = {"gt": gt, "lq": lq, "gt_path": ["a.png", "b.png"]}
    bad = {"gt": gt.clone(), "lq": lq, "gt_path": ["c.png", "bad.png"]}
    bad["gt"][1, 0, 0, 0] = torch.nan

    def step(data: dict[str, Any], iteration: int) -> dict[str, float]:
        model.feed_data(data)
        model.optimize_parameters(iteration)
        log: dict[str, float] = model.get_current_log()
        return log

    step(good, 1)
    before = {key: value.clone() for key, value in [*model.net_g.state_dict().items()]}
    ema = {key: value.clone() for key, value in [*model.net_g_ema.state_dict().items()]}
    steps = model.optimizer_g.state[model.net_g.encoder.conv_first.weight]["step"].item()
    assert "skipped_steps" not in model.get_current_log()
    assert step(bad, 2)["skipped_steps"] == 1
    assert step(bad, 3)["skipped_steps"] == 2
    assert all(torch.equal(value, before[key]) for key, value in model.net_g.state_dict().items())
    assert all(torch.equal(value, ema[key]) for key, value in model.net_g_ema.state_dict().items())
    assert model.optimizer_g.state[model.net_g.encoder.conv_first.weight]["step"].item() == steps
    assert step(good, 4)["skipped_steps"] == 2  # in all, none in a row any more
    assert not all(torch.equal(value, before[key]) for key, value in model.net_g.state_dict().items())
    step(bad, 5)
    step(bad, 6)
    with pytest.raises(TrainingError, match="3 iterations in a row, up to 7"):
        step(bad, 7)
    fault = torch.load(Path(tiny_options["path"]["experiments_root"]) / "fault_7.pth", weights_only=True)
    assert fault["files"] == ["c.png", "bad.png"]
    assert torch.equal(fault["gt"].isnan(), bad["gt"].isnan())
    assert all(torch.equal(value, fault["params"][key]) for key, value in model.net_g.state_dict().items())


def test_the_batch_in_parts_takes_the_same_step(tiny_options: Section) -> None:
    tiny_options["network_g"]["noise"] = "none"
    tiny_options["train"]["grad_clip"] = 0.1
    results = []
    for parts in (1, 2, 4):
        tiny_options["train"]["accumulation_steps"] = parts
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float64)
        try:
            model = build_model(tiny_options)
        finally:
            torch.set_default_dtype(torch.float32)
        gt, lq = image_pair(4, 4, 4, batch=4, dtype=torch.float64)
        for iteration in range(1, 4):
            model.feed_data({"gt": gt, "lq": lq})
            model.optimize_parameters(iteration)
        results.append((model.get_current_log(), model.net_g.state_dict()))
    for log, state in results[1:]:
        assert log["grad_norm"] > 0.1
        assert log == pytest.approx(results[0][0], abs=1e-9)
        assert all((value.double() - results[0][1][key].double()).abs().max() < 1e-9 for key, value in state.items())


def test_the_mean_of_what_is_frozen_stays_as_it_is(tiny_options: Section) -> None:
    tiny_options["train"].update(freeze_encoder_iters=1000, ema_decay=0.999)
    model = build_model(tiny_options)
    train_model(model, 1, 1)
    with torch.no_grad():  # values of every size
        for parameter in model.net_g.encoder.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.37)
    model._restart_ema()
    for _ in range(200):
        model.model_ema(0.999)
    ema = weights(model.net_g_ema.encoder)
    assert all(torch.equal(ema[name], value) for name, value in weights(model.net_g.encoder).items())


@pytest.mark.parametrize("noise", ["uniform", "gaussian", "conditional"])
def test_the_noise_of_a_step_is_that_of_its_draws(noise: str, tiny_options: Section) -> None:
    tiny_options["network_g"]["noise"] = noise
    losses: list[float] = []
    for draws in ([4, 5], [4, 5], [6, 7]):
        set_random_seed(0)
        model = build_model(tiny_options)
        torch.manual_seed(len(losses))  # which the noise does not come from
        model.feed_data({**model_batch(), "draw": torch.tensor(draws)})
        model.optimize_parameters(1)
        losses.append(model.get_current_log()["l_nll"])
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("steps", [1, 2])
def test_a_sum_over_the_batch_is_one_in_any_number_of_parts(steps: int, tiny_options: Section) -> None:
    tiny_options["network_g"]["noise"] = "none"
    tiny_options["train"].update(accumulation_steps=steps, grad_clip=1e9)
    gradients = []
    for reduction in ("mean", "sum"):
        tiny_options["train"]["nll_opt"] = {"type": "NLLLoss", "reduction": reduction}
        set_random_seed(0)
        model = build_model(tiny_options)
        train_model(model, 1, 1)
        gradients.append(model.get_current_log()["grad_norm"])
    assert gradients[1] == pytest.approx(2 * gradients[0], rel=1e-4)  # two images
