"""SRFlowModel: what one training step, one validation and a checkpoint do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import basicsr.archs.vgg_arch
import cv2
import pytest
import torch
import torchvision
from basicsr.data import build_dataloader, build_dataset
from basicsr.models import build_model
from basicsr.utils import set_random_seed
from conftest import image_pair

from srflow_plugin import SRFlowModel
from srflow_plugin.models.srflow_model import make_val_variants
from srflow_plugin.training_state import read_state, resolve_resume

Options = dict[str, Any]


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    gt, lq = image_pair(4, 4, 4)
    return {"gt": (gt + 0.01 * seed).clamp(0, 1), "lq": lq}


def train(model: SRFlowModel, first: int, last: int) -> None:
    for iteration in range(first, last + 1):
        model.update_learning_rate(iteration)
        model.feed_data(batch(iteration))
        model.optimize_parameters(iteration)


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def test_a_step_initialises_trains_and_logs(tiny_options: Options) -> None:
    model = build_model(tiny_options)
    assert isinstance(model, SRFlowModel)
    assert not model.net_g.initialized
    before = weights(model.net_g)
    train(model, 1, 1)
    assert model.net_g.initialized and model.net_g_ema.initialized
    # zero-initialised convolutions let gradients through to what lies before them only from the second step on
    train(model, 2, 2)
    still = [name for name, value in weights(model.net_g).items() if torch.equal(value, before[name])]
    assert still == []
    log = model.get_current_log()
    assert log["l_nll"] == pytest.approx(log["l_prior"] + log["l_logdet"], rel=1e-5)
    assert log["grad_norm"] > 0
    assert log["lr_flow"] == log["lr_encoder"] == 1e-3


def test_nll_falls(tiny_options: Options) -> None:
    model = build_model(tiny_options)
    train(model, 1, 1)
    first = model.get_current_log()["l_nll"]
    train(model, 2, 30)
    assert model.get_current_log()["l_nll"] < first - 0.5


def test_optimizer_is_the_one_asked_for(tiny_options: Options) -> None:
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


def test_frozen_encoder_does_not_move_by_one_bit_and_then_does(tiny_options: Options) -> None:
    tiny_options["train"]["freeze_encoder_iters"] = 3
    model = build_model(tiny_options)
    start = weights(model.net_g.encoder)
    flow_start = weights(model.net_g.flow)
    train(model, 1, 3)
    assert all(torch.equal(value, start[name]) for name, value in weights(model.net_g.encoder).items())
    assert not any(torch.equal(value, flow_start[name]) for name, value in weights(model.net_g.flow).items())
    train(model, 4, 4)
    assert not any(torch.equal(value, start[name]) for name, value in weights(model.net_g.encoder).items())


@pytest.mark.parametrize("stop_after", [2, 3])
def test_a_resumed_run_is_the_same_run_across_the_switch(tiny_options: Options, stop_after: int) -> None:
    tiny_options["network_g"]["noise"] = "none"
    tiny_options["train"]["freeze_encoder_iters"] = 3
    set_random_seed(tiny_options["manual_seed"])
    whole = build_model(tiny_options)
    train(whole, 1, 5)

    set_random_seed(tiny_options["manual_seed"])  # the same start
    part = build_model(tiny_options)
    for key in ("models", "training_states"):
        Path(tiny_options["path"][key]).mkdir(parents=True)
    train(part, 1, stop_after)
    part.save(0, stop_after)
    tiny_options["auto_resume"] = True
    resolve_resume(tiny_options)
    resumed = build_model(tiny_options)
    resumed.resume_training(read_state(Path(tiny_options["path"]["resume_state"])))
    train(resumed, stop_after + 1, 5)

    for name, value in resumed.net_g.state_dict().items():
        assert torch.equal(value, whole.net_g.state_dict()[name]), name
    for name, value in resumed.net_g_ema.state_dict().items():
        assert torch.equal(value, whole.net_g_ema.state_dict()[name]), name
    assert resumed.get_current_learning_rate() == whole.get_current_learning_rate() == [2.5e-4, 2.5e-4]
    state_of = resumed.optimizer_g.state
    steps = {group["name"]: state_of[group["params"][0]]["step"] for group in resumed.optimizer_g.param_groups}
    assert steps == {"flow": 5, "encoder": 2}


def test_the_tau_0_image_has_the_losses_asked_for(tiny_options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
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
        train(model, 1, 2)
        model.feed_data(batch())
        with torch.no_grad():
            image = model.net_g.sample(model.lq, temperature=0)[0]
        model.optimize_parameters(3)
        gradients[weight] = model.net_g.encoder.conv_first.weight.grad.clone()
    log = model.get_current_log()
    assert log["l_pix"] == pytest.approx(3 * (image - model.gt).abs().mean().item(), rel=1e-5)
    assert log["l_percep"] > 0 and "l_style" not in log
    assert log["l_nll"] == pytest.approx(log["l_prior"] + log["l_logdet"], rel=1e-5)
    assert not torch.allclose(gradients[0], gradients[3])


@pytest.mark.parametrize(
    "setting",
    [
        {"log_scale_bound": 1.2},
        {"num_steps": 2, "num_levels": 2, "coupling_layers": 4, "coupling_kernel_size": 3},
        {"noise": "conditional"},
        {"precision": "bfloat16"},
    ],
)
def test_options_beyond_the_paper_train(tiny_options: Options, setting: dict[str, Any]) -> None:
    tiny_options["network_g"].update(setting)
    model = build_model(tiny_options)
    train(model, 1, 1)
    first = model.get_current_log()["l_nll"]
    train(model, 2, 30)
    assert model.get_current_log()["l_nll"] < first - 0.5


def test_gradients_are_clipped(tiny_options: Options) -> None:
    tiny_options["train"]["grad_clip"] = 1e-3
    model = build_model(tiny_options)
    train(model, 1, 1)
    norm = torch.stack([p.grad.norm() for p in model.net_g.parameters() if p.grad is not None]).norm()
    assert norm <= 1.01e-3 < model.get_current_log()["grad_norm"]


def test_ema_follows(tiny_options: Options) -> None:
    model = build_model(tiny_options)
    train(model, 1, 1)
    for first, decay in ((2, 3 / 12), (3, 4 / 13), (4, 5 / 14)):
        before = weights(model.net_g_ema)
        train(model, first, first)
        for name, value in model.net_g_ema.named_parameters():
            torch.testing.assert_close(value, decay * before[name] + (1 - decay) * weights(model.net_g)[name])
    train(model, 5, 20)
    before = weights(model.net_g_ema)
    train(model, 21, 21)  # from iteration 8 on it is the option's
    for name, value in model.net_g_ema.named_parameters():
        torch.testing.assert_close(value, 0.5 * before[name] + 0.5 * weights(model.net_g)[name])


def test_initialisation_is_remembered_by_the_checkpoint(tiny_options: Options) -> None:
    model = build_model(tiny_options)
    train(model, 1, 2)
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


class Board:
    """Stands in for a SummaryWriter."""

    def __init__(self) -> None:
        self.scalars: dict[str, float] = {}
        self.images: dict[str, Any] = {}

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars[name] = value

    def add_image(self, name: str, image: Any, step: int, dataformats: str) -> None:
        self.images[name] = image


def val_loader(opt: Options) -> torch.utils.data.DataLoader:
    return build_dataloader(build_dataset(opt["datasets"]["val"]), opt["datasets"]["val"])


def test_validation_measures_every_temperature_and_draws(tiny_options: Options) -> None:
    model = build_model(tiny_options)
    train(model, 1, 1)
    board = Board()
    model.validation(val_loader(tiny_options), 1, board, save_img=True)
    names = {"psnr_tau0", "psnr_tau0.8", "psnr_bicubic"}
    assert set(model.metric_results) == names
    assert set(board.scalars) == {f"metrics/held_out/{name}" for name in [*names, "nonfinite", "exploded"]}
    assert board.scalars["metrics/held_out/nonfinite"] == 0
    assert model.best_metric_results["held_out"]["psnr_tau0"]["iter"] == 1
    assert model.net_g.training

    folder = Path(tiny_options["path"]["visualization"]) / "0"
    files = {path.stem.removeprefix("0_1") for path in folder.iterdir()}
    assert files == {"_tau0", "_tau0.8_0", "_tau0.8_1", "_bicubic", "_grid"}
    grid = cv2.imread(str(folder / "0_1_grid.png"))
    assert grid.shape[:2] == (24 + 44, 6 * 52 + 5 * 4)  # LR, bicubic, tau 0, two samples, GT
    assert board.images["held_out/0"].shape == grid.shape
    assert (grid[24:, -52:] == cv2.imread("images/val/0.png")).all()  # GT is what was held out

    first = dict(model.metric_results)
    model.validation(val_loader(tiny_options), 2, None, save_img=False)
    assert model.metric_results == first  # val.seed


def test_validation_measures_the_nll_once(tiny_options: Options) -> None:
    tiny_options["val"]["metrics"]["nll"] = {"type": "calculate_nll"}
    model = build_model(tiny_options)
    train(model, 1, 1)
    model.validation(val_loader(tiny_options), 1, None, save_img=False)
    assert set(model.metric_results) == {"nll", "psnr_tau0", "psnr_tau0.8", "psnr_bicubic"}
    item = next(iter(val_loader(tiny_options)))
    assert model.metric_results["nll"] == pytest.approx(float(model.net_g_ema.code_length(item["gt"], item["lq"])))
    first = model.metric_results["nll"]
    train(model, 2, 4)
    model.validation(val_loader(tiny_options), 4, None, save_img=False)
    lowest = min(first, model.metric_results["nll"])
    assert first != lowest and model.best_metric_results["held_out"]["nll"]["val"] == lowest


def test_validation_counts_nonfinite_values(tiny_options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(tiny_options)
    train(model, 1, 1)
    sample = model.net_g_ema.sample

    def broken(*args: Any, **kwargs: Any) -> torch.Tensor:
        images = sample(*args, **kwargs)
        images[0, 0, 0, 0, :3] = torch.tensor([float("nan"), float("inf"), 1.0])
        return images

    monkeypatch.setattr(model.net_g_ema, "sample", broken)
    board = Board()
    model.validation(val_loader(tiny_options), 1, board, save_img=False)
    assert board.scalars["metrics/held_out/nonfinite"] == 2 * 2  # two temperatures, not bicubic


def test_images_without_ground_truth_are_sampled_all_the_same(tiny_options: Options) -> None:
    model = build_model(tiny_options)
    train(model, 1, 1)
    model.feed_data({"lq": batch()["lq"]})
    model.test()
    visuals = model.get_current_visuals()
    assert set(visuals) == {"lq", "result"}
    assert visuals["result"].shape == (2, 3, 16, 16)


def test_variants_of_one_temperature_keep_the_metrics_names() -> None:
    variants = make_val_variants({"temperature": 0.9, "metrics": {"psnr": {"type": "calculate_psnr"}}})
    assert [(v.suffix, v.temperature, list(v.metrics)) for v in variants] == [("", 0.9, ["psnr"])]
