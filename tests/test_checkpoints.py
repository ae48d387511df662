"""Checkpoints: released networks' numbers, hyperparameters from files, conversions, bad files."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from basicsr.archs.rrdbnet_arch import RRDBNet
from basicsr.models import build_model
from conftest import SHARED, image_pair, small_network

from srflow_plugin import RRDBNetX8, SRFlowNet, load_network
from srflow_plugin.checkpoints import (
    check_encoder_fit,
    convert,
    encoder_weights,
    from_released,
    released_names,
    to_released,
)
from srflow_plugin.cli.main import srflow_command
from srflow_plugin.errors import UserError
from srflow_plugin.flow import bits_per_dimension, standard_normal_log_prob

REFERENCE = SHARED / "reference"
Weights = dict[str, torch.Tensor]


def reference_weights(name: str) -> Weights:
    """The recorded network's weights under the released names."""
    if not REFERENCE.is_dir():
        pytest.skip(f"{REFERENCE} with the released networks' outputs is not on this machine")
    spec = importlib.util.spec_from_file_location("make_weights", REFERENCE / "make_weights.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    state = module.state_dict_from_keys(REFERENCE / f"{name}_keys.json")
    return {key: torch.from_numpy(value) for key, value in state.items()}


def released_like(network: SRFlowNet) -> Weights:
    """A released file of a small network: what it uses, and something in place of what it does not."""
    released = to_released(network.state_dict())
    return {key: value if value.any() else torch.randn_like(value) for key, value in released.items()}


class Plain:
    """A network whose flow goes layer by layer, in the recorded one's order of additions."""

    def __init__(self, network: SRFlowNet) -> None:
        self.network, self.encoder, self.scale = network, network.encoder, network.scale

    def encode(self, gt: torch.Tensor, lq: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        return self.network.flow(*self.network.flow_inputs(gt, lq))

    def decode(self, latents: list[torch.Tensor], lq: torch.Tensor) -> torch.Tensor:
        return self.network.flow.inverse(latents, self.encoder(lq))[0]

    def __call__(self, gt: torch.Tensor, lq: torch.Tensor) -> torch.Tensor:
        latents, logdet = self.encode(gt, lq)
        log_prob = logdet + torch.stack([standard_normal_log_prob(latent) for latent in latents]).sum(0)
        return bits_per_dimension(log_prob, gt[0].numel())


# The recording is float32 itself and errs by up to 2e-5, as float64 shows.
@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [(Plain, torch.float32, 1e-5), (lambda net: net, torch.float32, 3e-5), (lambda net: net, torch.float64, 3e-5)],
)
@pytest.mark.parametrize("name", ["srflow_x4_small", "srflow_x8_small"])
def test_released_networks_numbers(name: str, kind: Any, dtype: torch.dtype, tolerance: float) -> None:
    network = kind(load_network(reference_weights(name)).to(dtype))
    reference = {key: torch.from_numpy(value).to(dtype) for key, value in np.load(REFERENCE / f"{name}.npz").items()}
    gt, lq = reference["gt"], reference["lr"]
    close = {"rtol": tolerance, "atol": tolerance}

    with torch.no_grad():
        latents, logdet = network.encode(gt, lq)
        for index, latent in enumerate(latents):
            torch.testing.assert_close(latent, reference[f"encoded_latent_{index}"], **close)
        # The released log-det counts the split latents' densities in; the released NLL is in bits per pixel.
        normal = torch.distributions.Normal(0.0, 1.0)
        densities = sum(normal.log_prob(latent.double()).sum((1, 2, 3)) for latent in latents[:-1])
        torch.testing.assert_close(logdet.double() + densities, reference["logdet"].double(), rtol=1e-5, atol=0.02)
        torch.testing.assert_close(3 * network(gt, lq), reference["nll"], **close)

        given = [reference[f"decode_latent_{index}"] for index in range(len(latents))]
        torch.testing.assert_close(network.decode(given, lq), reference["sr"], **close)
        level = {4: 1, 8: 2}[network.scale]
        corner = reference["fea_up1"]
        features = network.encoder(lq)[level][:, :, : corner.shape[2], : corner.shape[3]]
        torch.testing.assert_close(features, corner, **close)


def test_hyperparameters_of_the_released_networks() -> None:
    # The sizes of spec/srflow.md, section 4, under the released names, as empty tensors.
    general, faces = (1, 8, 15, 22), (1, 3, 5, 7)
    for scale, num_levels, num_block, blocks in [(4, 3, 23, general), (8, 4, 23, general), (8, 4, 8, faces)]:
        with torch.device("meta"):
            network = SRFlowNet(scale=scale, num_levels=num_levels, num_block=num_block, feature_blocks=blocks)
            released = to_released(network.state_dict())
        weights, unused = from_released(released)
        assert weights.keys() == network.state_dict().keys()
        assert weights["settings.feature_blocks"].tolist() == list(blocks)
        assert len(released) == len(list(released_names(num_block, scale.bit_length() - 1, num_levels, 16))) + len(
            unused
        )


@pytest.mark.parametrize(
    ("scale", "setting"),
    [
        (2, {"scale_floor": 0.2}),
        (4, {"log_scale_bound": 0.5}),
        (4, {"coupling_layers": 3, "coupling_kernel_size": 3}),
        (8, {"noise": "conditional"}),
    ],
)
def test_a_network_comes_back_from_every_format(scale: int, setting: dict[str, Any], tmp_path: Path) -> None:
    network = small_network(scale, **setting)
    network.initialize(*image_pair(scale, 4, 4))
    torch.save({"params": network.state_dict()}, tmp_path / "ours.pth")
    convert(tmp_path / "ours.pth", tmp_path / "ours.safetensors")
    convert(tmp_path / "ours.safetensors", tmp_path / "again.pth")
    wrapped = {f"module.{key}": value for key, value in network.state_dict().items()}
    gt, lq = image_pair(scale, 4, 6)
    for source in (tmp_path / "ours.pth", str(tmp_path / "ours.safetensors"), tmp_path / "again.pth", wrapped):
        loaded = load_network(source)
        assert not loaded.training and loaded.initialized
        assert torch.equal(loaded(gt, lq), network(gt, lq))


@pytest.mark.parametrize("storage", ["half", "compact"])
def test_less_space_for_nearly_the_same_network(storage: str, tmp_path: Path) -> None:
    network = small_network()
    torch.save({"params": network.state_dict()}, tmp_path / "net.pth")
    for name in ("float32", storage):
        target = str(tmp_path / f"{name}.safetensors")
        assert srflow_command(["convert", str(tmp_path / "net.pth"), target, "--storage", name]) == 0
    whole, small = (load_network(tmp_path / f"{name}.safetensors") for name in ("float32", storage))
    assert {value.dtype for value in small.parameters()} == {torch.float32}
    saved = 0
    for key, value in whole.state_dict().items():
        eight_bit = storage == "compact" and value.ndim == 4 and key.startswith("encoder.")
        if value.ndim < 2 or not value.is_floating_point():
            assert torch.equal(small.state_dict()[key], value)
        elif eight_bit:
            largest = value.abs().amax((1, 2, 3), keepdim=True)
            assert ((small.state_dict()[key] - value).abs() <= 0.501 * largest / 127).all()
            saved += 3 * value.numel() - 4 * len(value)
        else:
            assert torch.equal(small.state_dict()[key], value.half().float())
            saved += 2 * value.numel()
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("float32", storage)]
    assert sizes[0] - sizes[1] == pytest.approx(saved, rel=0.03)  # the headers differ, too


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("middle", ["middle.pth", "middle.safetensors"])
def test_the_way_to_our_format_and_back_keeps_every_bit(tmp_path: Path, middle: str, prefix: str) -> None:
    state = released_like(small_network(4, feature_blocks=(0, 1)))
    torch.save({prefix + key: value for key, value in state.items()}, tmp_path / "released.pth")
    convert(tmp_path / "released.pth", tmp_path / middle)
    assert srflow_command(["convert", str(tmp_path / middle), str(tmp_path / "back.pth"), "--to-released"]) == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["released.pth", middle, "back.pth"])


def test_ema_is_preferred_and_params_can_be_asked_for(tmp_path: Path) -> None:
    network, average = small_network(), small_network(num_steps=1)
    torch.save({"params": network.state_dict(), "params_ema": average.state_dict()}, tmp_path / "a.pth")
    assert len(load_network(tmp_path / "a.pth").flow.levels[0].bijections) == 1 + 2 + 1
    assert len(load_network(tmp_path / "a.pth", param_key="params").flow.levels[0].bijections) == 1 + 2 + 2


def test_feature_blocks_of_a_released_file_can_be_overridden() -> None:
    state = released_like(small_network(4, num_block=5, feature_blocks=(1, 2, 3, 4)))
    assert load_network(state).encoder.feature_blocks == (1, 2, 3, 4)
    assert load_network(state, feature_blocks=(0, 1, 2, 3)).encoder.feature_blocks == (0, 1, 2, 3)


def test_a_network_that_the_released_code_does_not_know_is_not_written_for_it() -> None:
    for setting in (
        {"scale_floor": 0.1},
        {"log_scale_bound": 1.0},
        {"encoder_skip": "conv_first"},
        {"coupling_layers": 2},
        {"noise": "conditional"},
    ):
        with pytest.raises(UserError, match=f"the released networks have {next(iter(setting))}"):
            to_released(small_network(4, **setting).state_dict())


def test_a_checkpoint_older_than_a_setting_is_as_the_released_networks_are() -> None:
    state = {key: value for key, value in small_network().state_dict().items() if key != "settings.log_scale_bound"}
    gt, lq = image_pair(4, 4, 6)
    assert torch.equal(load_network(state)(gt, lq), small_network()(gt, lq))


def test_option_files_take_released_files(workplace: Path) -> None:
    from test_options import parse

    opt = parse(workplace)
    arguments = {key: value for key, value in opt["network_g"].items() if key != "type"}
    network = SRFlowNet(**arguments)
    torch.save(released_like(network), "released.pth")
    parse(workplace, "path:pretrain_network_g=released.pth", is_train=False)


def bad_files(folder: Path) -> dict[str, tuple[Any, str]]:
    state = small_network().state_dict()
    released = released_like(small_network())
    torch.save({"params": state}, folder / "whole.pth")
    (folder / "cut.pth").write_bytes((folder / "whole.pth").read_bytes()[:-5000])
    (folder / "text.safetensors").write_text("text")

    def without(weights: Weights, key: str) -> Weights:
        assert key in weights
        return {name: value for name, value in weights.items() if name != key}

    return {
        "nothing there": (folder / "nowhere.pth", "nowhere.pth does not exist"),
        "cut off": (folder / "cut.pth", "cut.pth is not a readable checkpoint"),
        "not safetensors": (folder / "text.safetensors", "is not a readable checkpoint"),
        "another architecture": ({"body.0.rdb1.conv1.weight": torch.zeros(1)}, "holds an RRDB network, not SRFlow"),
        "no network": ({"a": torch.zeros(1)}, "holds no SRFlow network; its first key is 'a'"),
        "no weights": ({"params": {"a": 1}}, "holds no weights"),
        "missing key": (without(state, "flow.splits.0.prior.logs"), "flow.splits.0.prior.logs is missing"),
        "missing first key": (without(state, "encoder.conv_first.weight"), "encoder.conv_first.weight is missing"),
        "released, missing key": (
            without(released, "flowUpsamplerNet.layers.1.invconv.weight"),
            "flowUpsamplerNet.layers.1.invconv.weight is missing",
        ),
        "released, unknown key": ({**released, "RRDB.more": torch.zeros(1)}, "RRDB.more is not known"),
        "wrong shape": ({**state, "encoder.conv_body.bias": torch.zeros(1)}, "encoder.conv_body.bias is [1] there"),
    }


def test_bad_files_are_named_in_one_line(tmp_path: Path) -> None:
    for case, (source, message) in bad_files(tmp_path).items():
        with pytest.raises(UserError) as error:
            load_network(source)
        assert message in str(error.value) and "\n" not in str(error.value), case


def test_conversion_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"params": small_network().state_dict()}, tmp_path / "a.pth")
    for target, message in [("a.pth", "exists"), ("no/such/folder.pth", "is not a folder")]:
        with pytest.raises(SystemExit) as stop:
            srflow_command(["convert", str(tmp_path / "a.pth"), str(tmp_path / target)])
        errors = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2 and len(errors) == 1 and message in errors[0]
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def rrdb_and_encoder(scale: int, network: type[RRDBNet] = RRDBNet) -> tuple[RRDBNet, SRFlowNet]:
    """An RRDBNet and an SRFlowNet whose encoder it fits."""
    torch.manual_seed(0)
    rrdb = network(3, 3, num_feat=8, num_block=2, num_grow_ch=4).eval()
    return rrdb, small_network(scale, num_feat=8, num_grow_ch=4, num_block=2, encoder_skip="conv_first")


def old_esrgan_names(state: Weights) -> Weights:
    """ESRGAN's own names for BasicSR's."""
    renamed = {}
    for key, value in state.items():
        parts = key.replace("conv_body", "trunk_conv").replace("conv_up", "upconv").replace("conv_hr", "HRconv")
        renamed[parts.replace("body.", "RRDB_trunk.").replace("rdb", "RDB")] = value
    return renamed


@pytest.mark.parametrize(("scale", "kind"), [(4, RRDBNet), (8, RRDBNet), (8, RRDBNetX8)])
@pytest.mark.parametrize("old_names", [False, True])
def test_an_rrdb_network_becomes_the_encoder(scale: int, kind: type[RRDBNet], old_names: bool) -> None:
    rrdb, network = rrdb_and_encoder(scale, kind)
    state = old_esrgan_names(rrdb.state_dict()) if old_names else {"params_ema": rrdb.state_dict()}
    assert old_names == ("RRDB_trunk.0.RDB1.conv1.weight" in state)
    weights = encoder_weights(state, "params_ema")
    network.encoder.load_state_dict(check_encoder_fit(weights, network.encoder, "it"))

    _, lq = image_pair(4, 4, 6)
    seen: dict[str, torch.Tensor] = {}
    rrdb.conv_up1.register_forward_hook(lambda module, args, output: seen.update(up2=output.clone()))
    rrdb.conv_up2.register_forward_hook(lambda module, args, output: seen.update(up4=output.clone()))
    with torch.no_grad():
        assert rrdb(lq).shape[2:] == ((32, 48) if kind is RRDBNetX8 else (16, 24))
        finest = network.encoder(lq)[0][:, :8]
    expected = torch.nn.functional.leaky_relu(seen["up2" if scale == 4 else "up4"], 0.2)
    torch.testing.assert_close(finest, expected)


def test_training_starts_from_a_pretrained_encoder(tiny_options: dict[str, Any]) -> None:
    rrdb, _ = rrdb_and_encoder(4)
    torch.save({"params": rrdb.state_dict()}, "rrdb.pth")
    tiny_options["path"]["pretrain_network_encoder"] = "rrdb.pth"
    model = build_model(tiny_options)
    for encoder in (model.net_g.encoder, model.net_g_ema.encoder):
        assert torch.equal(encoder.conv_first.weight, rrdb.conv_first.weight)
        assert torch.equal(encoder.upconvs[0].bias, rrdb.conv_up1.bias)
        assert torch.equal(encoder.body[1].rdb3.conv5.weight, rrdb.body[1].rdb3.conv5.weight)


def test_an_encoder_that_does_not_fit_is_named(workplace: Path) -> None:
    from test_options import parse

    for changes, message in [
        ({"num_feat": 16}, r"conv_first\.weight is \[16, 3, 3, 3\] there, \[8, 3, 3, 3\] in network_g"),
        ({"num_block": 1}, r"body\.1\.rdb1\.conv1\.weight is missing"),
        ({"num_block": 3}, "has 3 RRDBs, the encoder of network_g 2"),
    ]:
        rrdb = RRDBNet(3, 3, **{"num_feat": 8, "num_block": 2, "num_grow_ch": 4, **changes})
        torch.save({"params": rrdb.state_dict()}, "rrdb.pth")
        with pytest.raises(UserError, match="path.pretrain_network_encoder: .*" + message):
            parse(workplace, "path:pretrain_network_encoder=rrdb.pth")
    torch.save({"params": small_network().state_dict()}, "srflow.pth")
    with pytest.raises(UserError, match="holds no RRDB network"):
        parse(workplace, "path:pretrain_network_encoder=srflow.pth")
