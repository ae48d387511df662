"""spandrel's own loader opens SRFlow's files, every kind of them, and takes nothing else for SRFlow."""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from srflow_plugin import SRFlowNet, load_network, upscale
from srflow_plugin.applications.upscale import RESAMPLE
from srflow_plugin.checkpoints.convert import convert
from srflow_plugin.checkpoints.released import to_released
from srflow_plugin.checkpoints.shipped import SHIPPED, find_checkpoint
from srflow_plugin.errors import UserError
from srflow_plugin.sampling.explosions import exploded
from tests.helpers import NETWORKS, image_pair, run_python, small_network

spandrel = pytest.importorskip("spandrel", reason="spandrel is not installed")
from srflow_plugin.integrations.spandrel import install, is_srflow  # noqa: E402

# Architectures of spandrel whose networks have no default sizes, or none that fit.
SIZES: dict[str, dict[str, Any]] = {
    "AuraSR": {"dim": 8, "image_size": None, "input_image_size": None, "style_network": {}},
    "MMRealSR": {"num_in_ch": 3, "num_out_ch": 3},
    "SAFMN": {"dim": 8},
    "SAFMNBCIE": {"dim": 8},
    "SPAN": {"num_in_ch": 3, "num_out_ch": 3},
    "SwinIR": {"window_size": 8},
    "Swin2SR": {"window_size": 8},
}
FILES = ("x.pth", "released.pth", "half.pth", "half.safetensors", "compact.pth", "compact.safetensors")


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    """Leave spandrel's registry as it was."""
    registry = spandrel.MAIN_REGISTRY
    before = registry.copy()
    install()
    yield
    vars(registry).update(vars(before))


def written(network: SRFlowNet, folder: Path, name: str) -> Path:
    """Write a network as a file of FILES."""
    source, target = folder / "source.pth", folder / name
    torch.save({"params": network.state_dict()}, source)
    kind = target.stem
    convert(source, target, released=kind == "released", storage=kind if kind in ("half", "compact") else "float32")  # type: ignore[arg-type]
    return target


def smooth(size: int) -> Tensor:
    """Make an LR image that no network of the package explodes on."""
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(coarse, (size, size), mode="bilinear")


@pytest.mark.parametrize(
    ("name", "file"), [*((name, "x.safetensors") for name in NETWORKS), *(("x4", file) for file in FILES)]
)
def test_a_file_gives_the_same_bits(name: str, file: str, tmp_path: Path) -> None:
    path = written(small_network(**NETWORKS[name]), tmp_path, file)
    _, lq = image_pair(NETWORKS[name]["scale"], 7, 5, batch=1)
    model = spandrel.ModelLoader().load_from_file(path)
    assert model.architecture.id == "SRFlow"
    network = load_network(path)
    assert torch.equal(model.model.sample(lq, 0), network.sample(lq, 0))
    # Random weights may explode.
    assert torch.equal(model(lq), network.sample(lq, 0, resample=RESAMPLE)[0].clamp(0, 1))


@pytest.mark.parametrize(("name", "scale"), [(one.name, one.scale) for one in SHIPPED.values()])
def test_networks_of_the_package(name: str, scale: int) -> None:
    model = spandrel.ModelLoader().load_from_file(find_checkpoint(name))
    lq = smooth(20)
    image = model(lq)
    assert image.dtype == torch.float32 and image.shape == (1, 3, 20 * scale, 20 * scale)
    assert torch.equal(image, load_network(name).sample(lq, 0)[0].clamp(0, 1))
    assert torch.equal(image, upscale(lq, temperature=0, checkpoint=name, device="cpu")[0])


def test_what_a_descriptor_says() -> None:
    model = spandrel.ModelLoader().load_from_file(SHIPPED["photo"].path)
    assert (model.scale, model.input_channels, model.output_channels, model.purpose) == (4, 3, 3, "SR")
    assert isinstance(model, spandrel.ImageModelDescriptor) and not model.model.training
    assert model.tiling == spandrel.ModelTiling.INTERNAL
    network = load_network(SHIPPED["photo"].path)
    assert model.tags == [f"{network.encoder.conv_first.out_channels}nf", f"{len(network.encoder.body)}nb", "2x6"]


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (33, 17)])
def test_any_size(size: tuple[int, int], tmp_path: Path) -> None:
    model = spandrel.ModelLoader().load_from_file(written(small_network(), tmp_path, "x.safetensors"))
    assert model.size_requirements == spandrel.SizeRequirements()
    assert model(torch.rand(1, 3, *size)).shape == (1, 3, 4 * size[0], 4 * size[1])


def test_what_explodes_becomes_bicubic(tmp_path: Path) -> None:
    network = small_network()
    with torch.no_grad():
        network.flow.levels[0].bijections[1].actnorm.logs.sub_(20)  # type: ignore[union-attr, operator]
    model = spandrel.ModelLoader().load_from_file(written(network, tmp_path, "x.pth"))
    _, lq = image_pair(4, 6, 6, batch=1)
    assert exploded(network.sample(lq, 0)).any()
    image = model(lq)
    assert image.isfinite().all() and (image - nn.functional.interpolate(lq, scale_factor=4)).abs().mean() < 0.2


def test_moves_and_types_after_use(tmp_path: Path) -> None:
    model = spandrel.ModelLoader().load_from_file(written(small_network(), tmp_path, "x.pth"))
    lq = torch.rand(1, 3, 6, 6)
    before = model(lq)
    assert torch.equal(model.train().cpu().float().to("cpu", torch.float32)(lq), before)
    assert not model.model.training
    for half in (torch.float16, torch.bfloat16):
        with pytest.raises(spandrel.UnsupportedDtypeError):
            model.to(half)
    double = model.to(torch.float64)(lq.double())
    assert double.dtype == torch.float64 and (double - before).abs().max() < 1e-5
    assert torch.equal(model.to(torch.float32)(lq), before)
    model.model(torch.rand(1, 3, 24, 24), lq).mean().backward()  # nothing is left of the inference mode


def spandrels() -> Iterator[tuple[str, Any]]:
    for support in spandrel.MAIN_REGISTRY:
        if support.architecture.id != "SRFlow":
            yield support.architecture.id, support


def networks_of(name: str, support: Any) -> Iterator[dict[str, Tensor]]:
    """Build the networks of an architecture, if possible without memory, and give their weights."""
    module = importlib.import_module(type(support.architecture).__module__)
    for cls in (getattr(module, word) for word in module.__all__):
        if inspect.isclass(cls) and issubclass(cls, nn.Module):
            try:
                with torch.device("meta"):
                    yield cls(**SIZES.get(name, {})).state_dict()
            except RuntimeError:  # some compute with numbers when they are built
                yield cls(**SIZES.get(name, {})).state_dict()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.parametrize("name", [name for name, _ in spandrels()])
def test_no_other_network_is_taken_for_ours(name: str) -> None:
    support = spandrel.MAIN_REGISTRY[name]
    found = list(networks_of(name, support))
    assert found
    for state in found:
        assert support.detect(state) or name == "NAFNet"  # whose default is without blocks
        assert not is_srflow(state)


@pytest.mark.parametrize("name", NETWORKS)
def test_none_of_ours_is_taken_for_another(name: str) -> None:
    network = small_network(**NETWORKS[name])
    states = [network.state_dict()]
    if name in ("x2", "x4"):
        states.append(to_released(network.state_dict()))
    for state in states:
        assert is_srflow(state)
        assert not [other for other, support in spandrels() if support.detect(state)]


def encoder_alone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}


@pytest.mark.parametrize(
    "change",
    [
        encoder_alone,
        lambda state: {key: value for key, value in state.items() if key.startswith("encoder.")},
        lambda state: {key: value for key, value in state.items() if key.startswith("flow.")},
        lambda state: {key: value for key, value in to_released(state).items() if key.startswith("RRDB.")},
        lambda state: {"weights": state},
        lambda state: {},
    ],
)
def test_what_is_no_srflow(change: Any) -> None:
    state = {**change(small_network().state_dict()), "other": torch.zeros(1), "another": torch.zeros(1)}
    with pytest.raises(spandrel.UnsupportedModelError):
        spandrel.ModelLoader().load_from_state_dict(state)


@pytest.mark.parametrize("released", [False, True])
def test_a_missing_key_is_named(released: bool) -> None:
    state = small_network().state_dict()
    state = to_released(state) if released else state
    read = [key for key in state if not key.startswith(("settings.", "RRDB.HR", "RRDB.upconv2", "RRDB.conv_last"))]
    read = [key for key in read if not key.startswith("flowUpsamplerNet.f.0")]
    for missing in read[:: len(read) // 20]:
        with pytest.raises(UserError, match=f"{missing} is missing|whole|coupling_layers"):
            spandrel.ModelLoader().load_from_state_dict({key: state[key] for key in state if key != missing})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flow.levels.0.bijections.1.actnorm.bias": torch.zeros(3)}, "is not part of it|is missing"),
        ({"encoder.conv_first.weight": torch.zeros(7, 3, 3, 3)}, "does not fit"),
        ({"encoder.conv_first.weight": torch.full((6, 3, 3, 3), torch.nan)}, "not finite"),
        ({"encoder.conv_first.weight": "text"}, "holds no weights"),
        ({"settings.scale_floor": torch.zeros(2)}, "a setting is a tensor"),
    ],
)
def test_what_is_damaged_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        spandrel.ModelLoader().load_from_state_dict({**small_network().state_dict(), **change})


def test_what_a_released_file_does_not_tell_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        spandrel.ModelLoader().load_from_state_dict(to_released(small_network().state_dict()))
    assert "does not say which RRDBs condition its flow" in caplog.text


def test_installing_twice_changes_nothing() -> None:
    before = len(spandrel.MAIN_REGISTRY)
    install()
    assert len(spandrel.MAIN_REGISTRY) == before and "SRFlow" in spandrel.MAIN_REGISTRY


def test_a_missing_spandrel_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    monkeypatch.delitem(sys.modules, install.__module__)
    with pytest.raises(UserError, match=r"integrations\.spandrel needs spandrel, .* not installed: pip install"):
        importlib.import_module(install.__module__)


@pytest.mark.slow
def test_installing_loads_no_network_and_no_training_toolkit() -> None:
    done = run_python(
        "import spandrel, sys; before = {*sys.modules}; import srflow_plugin.integrations.spandrel as s; s.install()\n"
        "print(*sorted({*sys.modules} - before))"
    )
    assert done.returncode == 0, done.stderr
    new = {name for name in done.stdout.split() if name.partition(".")[0] not in sys.stdlib_module_names}
    light = {"_version", "compat", "errors", "integrations", "integrations.spandrel"}
    assert new == {"srflow_plugin", *(f"srflow_plugin.{name}" for name in light)}
