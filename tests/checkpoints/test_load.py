"""Files that become networks: every format, every kind of weights, and bad ones."""

from __future__ import annotations

import gzip
import math
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from basicsr.archs.rrdbnet_arch import RRDBNet
from basicsr.models import build_model
from PIL import Image
from safetensors.torch import save

from srflow_plugin import RRDBNetX8, SRFlowNet, load_network
from srflow_plugin.checkpoints.convert import convert
from srflow_plugin.checkpoints.fit import Weights, check_encoder_fit
from srflow_plugin.checkpoints.load import encoder_weights, flat_weights
from srflow_plugin.errors import UserError
from tests.helpers import image_pair, released_like, small_network


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


def test_ema_is_preferred_and_params_can_be_asked_for(tmp_path: Path) -> None:
    network, average = small_network(), small_network(num_steps=1)
    torch.save({"params": network.state_dict(), "params_ema": average.state_dict()}, tmp_path / "a.pth")
    assert len(load_network(tmp_path / "a.pth").flow.levels[0].bijections) == 1 + 2 + 1
    assert len(load_network(tmp_path / "a.pth", param_key="params").flow.levels[0].bijections) == 1 + 2 + 2


def test_feature_blocks_of_a_released_file_can_be_overridden() -> None:
    state = released_like(small_network(4, num_block=5, feature_blocks=(1, 2, 3, 4)))
    assert load_network(state).encoder.feature_blocks == (1, 2, 3, 4)
    assert load_network(state, feature_blocks=(0, 1, 2, 3)).encoder.feature_blocks == (0, 1, 2, 3)


def test_a_checkpoint_older_than_a_setting_is_as_the_released_networks_are() -> None:
    state = {key: value for key, value in small_network().state_dict().items() if key != "settings.log_scale_bound"}
    gt, lq = image_pair(4, 4, 6)
    assert torch.equal(load_network(state)(gt, lq), small_network()(gt, lq))


def bad_files(folder: Path) -> dict[str, tuple[Any, str]]:
    state = small_network().state_dict()
    released = released_like(small_network())

    def without(weights: Weights, key: str) -> Weights:
        assert key in weights
        return {name: value for name, value in weights.items() if name != key}

    return {
        "nothing there": (folder / "nowhere.pth", "nowhere.pth does not exist"),
        "not finite": (
            {**state, "encoder.conv_body.bias": torch.full((6,), math.nan)},
            "encoder.conv_body.bias has 6 of 6",
        ),
        "not finite, wrapped": ({"params": {**state, "flow.x": torch.tensor([math.inf, 0])}}, "flow.x has 1 of 2"),
        "not finite, released": ({**released, "RRDB.conv_first.bias": torch.tensor([-math.inf])}, "has 1 of 1"),
        "not finite in float32": ({**state, "flow.x": torch.tensor([1e300, 1], dtype=torch.float64)}, "has 1 of 2"),
        "not finite in 8 bits": (
            {**state, "flow.x": torch.tensor([1], dtype=torch.int8), "flow.x.scale": torch.tensor([math.nan])},
            "flow.x has 1 of 1",
        ),
        "sparse": ({**state, "flow.x": torch.eye(2).to_sparse()}, "flow.x is torch.sparse_coo"),
        "a training's state": (
            {"iter": 1, "epoch": 0, "optimizers": [], "schedulers": []},
            "is a training state: give its network",
        ),
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


class Code:
    """What runs code when it is unpickled the usual way."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("it_ran",)


def written(write: Callable[[BytesIO], object]) -> bytes:
    buffer = BytesIO()
    write(buffer)
    return buffer.getvalue()


def image_as(kind: str) -> bytes:
    return written(lambda file: Image.new("RGB", (8, 8)).save(file, kind))


def zipped(file: BytesIO) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("net.pth", b"weights")


def tarred(file: BytesIO) -> None:
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("net.pth"))


def foreign_files() -> dict[str, tuple[bytes, str]]:
    """Contents of files that hold no weights, with what is said of them."""
    weights = {"a": torch.zeros(1000)}
    ours, legacy = (
        written(lambda file, new=new: torch.save(weights, file, _use_new_zipfile_serialization=new))  # type: ignore[misc]
        for new in (True, False)
    )
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 5000\n"
    broken = "is cut off or damaged: its download broke"
    return {
        "png": (image_as("PNG"), "it is a PNG image"),
        "jpeg": (image_as("JPEG"), "it is a JPEG image"),
        "gif": (image_as("GIF"), "it is a GIF image"),
        "tiff": (image_as("TIFF"), "it is a TIFF image"),
        "webp": (image_as("WEBP"), "it is a WebP image"),
        "bmp": (image_as("BMP"), "it is a BMP image"),
        "zip": (written(zipped), "it is a zip archive of net.pth: unpack it"),
        "tar": (written(tarred), "it is a tar archive: unpack it"),
        "gzip": (gzip.compress(ours), "it is a gzip archive: unpack it"),
        "text": (b"# A read me of a network\n", "it is a text ('A read me of a network')"),
        "a long text": ("Größe ".encode() * 2000, "it is a text ('Größe Größe"),
        "json": (b'{"architectures": ["SRFlow"]}', "it is a JSON text"),
        "empty": (b"", "it is empty"),
        "a few bytes": (b"weights", "it is only 7 bytes long"),
        "zeros": (bytes(9000), "it is full of zeros"),
        "noise": (np.random.default_rng(0).bytes(9000), "it is damaged, or holds something else than weights"),
        "a web page": (b"\n<!DOCTYPE html>\n<title>404</title>", "it is a web page, as a download that failed leaves"),
        "an error of a server": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "it is a web page"),
        "Git LFS": (pointer, "it is what Git LFS leaves in place of a file: fetch that with `git lfs pull`"),
        "cut off": (ours[:-500], broken),
        "cut off early": (ours[:40], broken),
        "of older PyTorch, cut off": (legacy[:-500], broken),
        "safetensors, cut off": (save(weights)[:-500], "it is cut off after"),
        "safetensors, cut off in its header": (save(weights)[:30], "it is cut off after 30 bytes"),
        "code": (
            written(lambda file: torch.save({"params": Code()}, file)),
            ".mkdir, which is not loaded because that",
        ),
        "code of a text": (b"cposix\nsystem\n(S'mkdir it_ran'\ntR.", "posix.system, which is not loaded"),
        "code of a pickle": (
            pickle.dumps(Code(), protocol=4),
            "it is a pickle of Python's objects, which is not loaded",
        ),
        "numbers of NumPy": (pickle.dumps({"a": np.zeros(300)}, protocol=5), "it is a pickle of Python's objects"),
        "an array": (written(lambda file: np.save(file, np.zeros(9))), "it is a NumPy array"),
        "a tensor": (written(lambda file: torch.save(torch.zeros(9), file)), "it holds a Tensor"),
        "a whole network": (
            written(lambda file: torch.save(torch.nn.Linear(1, 1), file)),
            "linear.Linear, which is not",
        ),
    }


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ""])
@pytest.mark.parametrize("kind", foreign_files())
def test_files_of_another_kind_are_called_what_they_are(
    kind: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.chdir(tmp_path)
    contents, message = foreign_files()[kind]
    recwarn.clear()
    path = Path(f"net{suffix}")
    path.write_bytes(contents)
    for read in (load_network, lambda path: convert(path, Path("out.pth"))):
        with pytest.raises(UserError) as error:
            read(path)
        text = str(error.value)
        assert text.startswith(f"{path} is not a ") and message in text and len(text) < 200
        assert not {"\n", "\x1b"} & {*text} and "weights_only" not in text and "torch.load" not in text
    assert [*Path().iterdir()] == [path] and not recwarn.list


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt", ""])
def test_what_a_file_holds_counts_not_its_name(suffix: str, tmp_path: Path) -> None:
    state = small_network().state_dict()
    for contents in (save(state), written(lambda file: torch.save(state, file))):
        (tmp_path / f"net{suffix}").write_bytes(contents)
        assert load_network(tmp_path / f"net{suffix}").scale == 4


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, message in {
        tmp_path: "is a folder; give a file",
        tmp_path / "file" / "net.pth": "does not exist; correct the path",
        tmp_path / "nowhere.pth": "does not exist; correct the path",
        tmp_path / ("long" * 1000): "cannot be read: File name too long",
        Path("with\0zero"): "is no name of a file",
        **({Path("/dev/zero"): "is not a file, but a device"} if Path("/dev/zero").exists() else {}),
    }.items():
        with pytest.raises(UserError) as error:
            load_network(path)
        assert message in str(error.value)


def test_weights_that_a_smaller_type_cannot_hold_are_not_converted(tmp_path: Path) -> None:
    state = small_network().state_dict()
    key = next(key for key in state if key.startswith("flow.") and state[key].numel() == 12 * 12)
    state[key] = torch.full_like(state[key], 1e5)
    torch.save({"params": state}, tmp_path / "net.pth")
    convert(tmp_path / "net.pth", tmp_path / "same.pth")
    with pytest.raises(UserError, match=r"net\.pth as half holds weights that are not finite: flow\..* has 144 of 144"):
        convert(tmp_path / "net.pth", tmp_path / "half.pth", storage="half")
    assert not (tmp_path / "half.pth").exists()


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


def test_a_file_that_does_not_say_whether_its_noise_was_centred_is_told_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = small_network().state_dict()
    load_network(state)
    assert not caplog.records
    del state["settings.one_sided_noise"]
    torch.save({"params": state}, tmp_path / "old.pth")
    assert load_network(tmp_path / "old.pth").shift == 0
    assert "old.pth is older than version 0.3 and does not say whether its noise was centred" in caplog.text
    assert load_network(state, one_sided_noise=32).shift == 1 / 64
    caplog.clear()
    convert(tmp_path / "old.pth", tmp_path / "new.pth", one_sided_noise=256)
    caplog.clear()
    assert load_network(tmp_path / "new.pth").shift == 1 / 512 and not caplog.records
    with pytest.raises(RuntimeError, match=r"one_sided_noise is 256\.0 in the checkpoint and None in the network"):
        small_network().load_state_dict(load_network(tmp_path / "new.pth").state_dict())


def test_parameters_of_other_networks_may_be_called_scale() -> None:
    weights = {"a.weight": torch.ones(2), "a.scale": torch.ones(3), "a.weight.scale": torch.full((2,), 2.0)}
    assert flat_weights(weights, "params", "it").keys() == weights.keys()
    stored = {
        "b.weight": torch.ones(2, dtype=torch.int8),
        "b.weight.scale": torch.full((2,), 2.0),
        "scale": torch.ones(1),
    }
    read = flat_weights(stored, "params", "it")
    assert read.keys() == {"b.weight", "scale"} and read["b.weight"].tolist() == [2, 2]


# -- what is wrapped around weights, and ESRGAN's first layout ---------------------------------------------------------

WRAPPED: dict[str, Callable[[Weights], dict[str, Any]]] = {
    "a state dict": lambda weights: {"state_dict": weights, "epoch": 3},
    "a model": lambda weights: {"model": weights, "optimizer": {"lr": 1e-3}},
    "beside a tensor": lambda weights: {"params": weights, "iter": torch.tensor(3)},
    "twice": lambda weights: {"model": {"params": weights}},
    "the mean first": lambda weights: {"params_ema": weights, "params": {"x": torch.zeros(1)}},
    "a parallel module": lambda weights: {f"module.{key}": value for key, value in weights.items()},
    "a compiled one": lambda weights: {"params": {f"_orig_mod.{key}": value for key, value in weights.items()}},
    "both": lambda weights: {"net": {f"module._orig_mod.{key}": value for key, value in weights.items()}},
    "a Lightning module": lambda weights: {"state_dict": {f"net_g.{key}": value for key, value in weights.items()}},
}


@pytest.mark.parametrize("how", WRAPPED)
def test_usual_wrappings_come_off(how: str) -> None:
    network = small_network()
    again = load_network(WRAPPED[how](network.state_dict()))
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(("scale", "layers"), [(2, (3, 5, 7)), (4, (3, 6, 8, 10)), (8, (3, 6, 9, 11, 13))])
def test_esrgans_first_layout_loads_into_the_encoder(scale: int, layers: tuple[int, ...]) -> None:
    def conv(name: str) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": torch.randn(2, 2, 3, 3), f"{name}.bias": torch.randn(2)}

    blocks = [f"model.1.sub.{n}.RDB{k}.conv{j}.0" for n in range(2) for k in (1, 2, 3) for j in range(1, 6)]
    names = ["model.0", *blocks, "model.1.sub.2", *(f"model.{layer}" for layer in layers)]
    old = {key: value for name in names for key, value in conv(name).items()}
    weights = encoder_weights(old)
    assert torch.equal(weights["conv_first.weight"], old["model.0.weight"])
    assert torch.equal(weights["body.1.rdb3.conv5.bias"], old["model.1.sub.1.RDB3.conv5.0.bias"])
    assert torch.equal(weights["conv_body.weight"], old["model.1.sub.2.weight"])
    upconvs = {key: value for key, value in weights.items() if key.startswith("upconvs.")}
    assert len(upconvs) == 2 * (len(layers) - 2)
    for number, layer in enumerate(layers[:-2]):
        assert torch.equal(upconvs[f"upconvs.{number}.weight"], old[f"model.{layer}.weight"])
    assert not any("output" in key or "model" in key for key in weights)
