"""srflow export: a network as ONNX files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from srflow_plugin.archs.rrdb import make_trunk
from tests.helpers import refusal, small_network, srflow

pytest.importorskip("onnxscript", reason="ONNX files are written by onnxscript")
pytest.importorskip("onnxruntime", reason="ONNX files are run by onnxruntime")

from srflow_plugin.integrations import onnx as module


@pytest.fixture(autouse=True)
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, entered, with a network."""
    monkeypatch.chdir(tmp_path)
    torch.save({"params": small_network(num_block=1, feature_blocks=(0,), num_steps=1).state_dict()}, "net.pth")


def test_both_files_are_written(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def write(network: Any, path: Path, *how: Any) -> list[module.Written]:
        calls.append((network.scale, path, *how))
        return [module.Written(file, 2_500_000, 1.25e-6) for file in module.files_of(path)]

    monkeypatch.setattr(module, "write_onnx", write)
    srflow("export out.onnx")
    srflow("export out.onnx --precision float16 --overwrite --scale 4")
    assert calls == [
        (4, Path("out.onnx"), "float32", False, Path("net.pth")),
        (4, Path("out.onnx"), "float16", True, Path("net.pth")),
    ]
    told = capsys.readouterr().out.splitlines()
    assert told[1] == f"out_latents.onnx: 2.5 MB, opset {module.OPSET}; within 1e-06 of the network in onnxruntime"


def test_what_cannot_be_exported(capsys: pytest.CaptureFixture[str]) -> None:
    assert "net.pt must end in .onnx" in refusal(capsys, "export", "net.pt")
    assert "nowhere.pth does not exist" in refusal(capsys, "export", "a.onnx", "--checkpoint", "nowhere.pth")
    assert "nowhere is not a folder" in refusal(capsys, "export", "nowhere/a.onnx")
    assert "network of scale 4, not 8" in refusal(capsys, "export", "a.onnx", "--checkpoint", "net.pth", "--scale", "8")
    torch.save({f"body.{key}": value for key, value in make_trunk(1, 4, 4).state_dict().items()}, "rrdb.pth")
    assert "RRDB network, not SRFlow" in refusal(capsys, "export", "a.onnx", "--checkpoint", "rrdb.pth")
    Path("a_latents.onnx").write_text("mine")
    assert "a_latents.onnx exists; give --overwrite" in refusal(capsys, "export", "a.onnx")


def test_a_library_that_is_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "srflow_plugin.integrations.onnx", raising=False)
    monkeypatch.delattr("srflow_plugin.integrations.onnx", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    line = refusal(capsys, "export", "a.onnx")
    assert "srflow export needs onnxruntime, which is not installed: pip install" in line and "[onnx]" in line
