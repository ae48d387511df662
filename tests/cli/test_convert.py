"""srflow convert: a checkpoint in another format."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from srflow_plugin import load_network
from srflow_plugin.checkpoints.convert import convert
from srflow_plugin.cli.main import srflow_command
from tests.helpers import refusal, small_network


@pytest.fixture(autouse=True)
def two_kinds_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, entered, with a checkpoint of weights and of their mean over iterations."""
    monkeypatch.chdir(tmp_path)
    mean = small_network(num_steps=1).state_dict()
    torch.save({"params": small_network().state_dict(), "params_ema": mean}, "a.pth")


def test_every_option_is_that_of_the_function() -> None:
    for storage in ("half", "compact"):
        assert srflow_command(["convert", "a.pth", f"{storage}.safetensors", "--storage", storage]) == 0
        convert(Path("a.pth"), Path("expected.safetensors"), storage=storage, overwrite=True)
        assert Path(f"{storage}.safetensors").read_bytes() == Path("expected.safetensors").read_bytes()
    assert srflow_command(["convert", "a.pth", "last.safetensors", "--param-key", "params"]) == 0
    assert len(load_network("last.safetensors").flow.levels[0].bijections) == 1 + 2 + 2
    assert len(load_network("half.safetensors").flow.levels[0].bijections) == 1 + 2 + 1
    assert srflow_command(["convert", "a.pth", "released.safetensors", "--to-released"]) == 0
    assert "RRDB.conv_first.weight" in load_file("released.safetensors")


def test_nothing_is_overwritten_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    for target, message in [("a.pth", "a.pth exists; give --overwrite"), ("no/such/folder.pth", "is not a folder")]:
        assert message in refusal(capsys, "convert", "a.pth", target)
    assert [path.name for path in Path().iterdir()] == ["a.pth"]
    assert "nowhere.pth does not exist" in refusal(capsys, "convert", "nowhere.pth", "b.pth")
    Path("b.pth").write_text("mine")
    assert srflow_command(["convert", "a.pth", "b.pth", "--overwrite"]) == 0
    assert load_network("b.pth").scale == 4


def test_one_sided_noise_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = small_network().state_dict()
    del state["settings.one_sided_noise"]
    torch.save({"params": state}, "old.pth")
    assert srflow_command(["convert", "old.pth", "new.safetensors", "--one-sided-noise", "256"]) == 0
    assert load_network("new.safetensors").shift == 1 / 512
