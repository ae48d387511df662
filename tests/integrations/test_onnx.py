"""ONNX files: checked, run by onnxruntime at other sizes than the one they were traced with, complete or absent."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from srflow_plugin import SRFlowNet
from srflow_plugin._version import __version__
from srflow_plugin.applications.latents import fingerprint
from srflow_plugin.checkpoints.shipped import SHIPPED
from srflow_plugin.errors import UserError
from tests.helpers import NETWORKS, ROOT, noise_image, perturb, run_python, small_network
from tests.integrations.test_exported import FEW, SIZES, inputs_of

pytest.importorskip("onnxscript", reason="ONNX files are written by onnxscript")
pytest.importorskip("onnxruntime", reason="ONNX files are run by onnxruntime")

import onnx

from srflow_plugin.integrations import onnx as module
from srflow_plugin.integrations.onnx import files_of, metadata, run_session, session_of, write_onnx


@pytest.fixture(scope="module")
def network() -> SRFlowNet:
    return small_network(**FEW, scale_floor=0.3)


@pytest.fixture(scope="module")
def files(network: SRFlowNet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Both files of a network."""
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    written = write_onnx(network, path)
    assert [one.path for one in written] == [*files_of(path)] == sorted(path.parent.iterdir())
    assert all(one.size == one.path.stat().st_size and one.error < 1e-5 for one in written)
    return files_of(path)


def differences(network: SRFlowNet, files: tuple[Path, Path]) -> list[float]:
    """Compare both files with the network, at several sizes."""
    found = []
    for size in SIZES:
        lr, *latents = inputs_of(network, *size)
        for path, own in zip(files, ([torch.zeros_like(x) for x in latents], latents), strict=True):
            with torch.no_grad():
                expected = network.decode(own, lr).numpy()
            given = run_session(session_of(path.read_bytes(), 1), [lr, *latents])
            assert given.shape == expected.shape and given.dtype == np.float32
            found.append(float(np.abs(given - expected).max() / max(1, np.abs(expected).max())))
    return found


def test_both_files_draw_what_the_network_draws(network: SRFlowNet, files: tuple[Path, Path]) -> None:
    assert max(differences(network, files)) < 1e-5


@pytest.mark.slow
def test_a_network_that_extends_no_image_in_half_precision(tmp_path: Path) -> None:
    network = small_network(**{**NETWORKS["SRFlow-DA"], **FEW})
    write_onnx(network, tmp_path / "net.onnx", "float16")
    assert 1e-6 < max(differences(network, files_of(tmp_path / "net.onnx"))) < 1e-2


def test_the_promised_inputs(network: SRFlowNet, files: tuple[Path, Path]) -> None:
    alone, with_latents = (onnx.load(path) for path in files)
    assert [one.name for one in alone.graph.input] == ["lr"]
    assert [one.name for one in with_latents.graph.input] == ["lr", "latent_1", "latent_2"]
    for model in (alone, with_latents):
        assert [one.name for one in model.graph.output] == ["sr"]
        assert [one.version for one in model.opset_import] == [module.OPSET]
        lr, *_ = model.graph.input
        assert [d.dim_param or d.dim_value for d in lr.type.tensor_type.shape.dim] == ["batch", 3, "height", "width"]


def test_a_program_finds_in_the_metadata_what_it_needs(network: SRFlowNet, files: tuple[Path, Path]) -> None:
    told: list[dict[str, str]] = [{one.key: one.value for one in onnx.load(path).metadata_props} for path in files]
    assert told == [metadata(network, with_latents) for with_latents in (False, True)]
    for one in told:
        assert one["scale"] == "4" and one["srflow_plugin"] == __version__
        assert one["network_sha256"] == fingerprint(network) and one["license"] == "that of the network's author"
    assert told[0]["temperature"] == "0" and told[1]["latent_shapes"].startswith("6,4*H,4*W; 96,H,W where H = ceil(")


@pytest.mark.parametrize("name", NETWORKS)
def test_latents_by_the_metadata_are_those_of_the_network(name: str) -> None:
    network = small_network(**NETWORKS[name])
    latents = json.loads(metadata(network, True)["latents"])
    for height, width in [(1, 1), (5, 8), (7, 2)]:
        rows, columns = (math.ceil(length / latents["size_multiple"]) for length in (height, width))
        shapes = [(channels, k * rows, k * columns) for channels, k in latents["channels_and_factors"]]
        assert shapes == network.latent_shapes(height, width)


def test_the_licence_of_the_packages_networks(network: SRFlowNet) -> None:
    assert metadata(network, False, source=SHIPPED["photo"].path)["license"] == "Apache-2.0"
    assert metadata(network, False, source=SHIPPED["photo"].path)["network"] == "srflow_x4.safetensors"


def test_the_pages_script_draws_a_picture_without_torch(files: tuple[Path, Path], tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "export.md").read_text(encoding="utf-8")
    (script,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "onnxruntime" in block)
    Image.fromarray(noise_image(5, 8)).save(tmp_path / "photo.png")
    shutil.copy(files[1], tmp_path / "srflow_latents.onnx")
    done = run_python(f"import sys; sys.modules['torch'] = None\n{script}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "result.png").size == (32, 20)


@pytest.fixture
def made(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Contents that are there already, in place of those made anew."""

    def contents(network: SRFlowNet, with_latents: bool, *rest: Any) -> bytes:
        return files[with_latents].read_bytes()

    monkeypatch.setattr(module, "model_bytes", contents)


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("there", ["net.onnx", "net_latents.onnx"])
def test_nothing_is_overwritten_unless_asked(there: str, network: SRFlowNet, tmp_path: Path) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(UserError, match=f"{there} exists; give --overwrite"):
        write_onnx(network, tmp_path / "net.onnx")
    assert [path.name for path in tmp_path.iterdir()] == [there]
    write_onnx(network, tmp_path / "net.onnx", overwrite=True)
    assert [onnx.load(path).graph.output[0].name for path in tmp_path.iterdir()] == ["sr", "sr"]


@pytest.mark.usefixtures("made")
def test_files_that_draw_something_else_are_not_written(network: SRFlowNet, tmp_path: Path) -> None:
    other = perturb(small_network(**FEW, scale_floor=0.3), seed=1)
    with pytest.raises(UserError, match=r"net.onnx would differ from the network by .*; nothing is written"):
        write_onnx(other, tmp_path / "net.onnx")
    with pytest.raises(UserError, match="give --precision float32"):
        write_onnx(other, tmp_path / "net.onnx", "float16")
    with torch.no_grad():
        broken = small_network(**FEW, scale_floor=0.3)
        broken.encoder.conv_first.weight.fill_(math.nan)
    with pytest.raises(UserError, match="would differ from the network by nan"):
        write_onnx(broken, tmp_path / "net.onnx")
    assert not [*tmp_path.iterdir()]
