"""basicsr test as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from srflow_plugin.cli.main import basicsr_command
from tests.helpers import BIN, run, untrained_network

TEST = ["test", "-opt", "tiny.yml", "--force_yml", "path.pretrain_network_g=net.pth"]


def test_a_test_measures_and_draws(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    untrained_network("net.pth")
    assert basicsr_command([*TEST, "train=none", "val.suffix=mine"]) == 0
    output = capsys.readouterr().err
    assert "Validation held_out" in output and "# psnr_tau0.8: " in output and "# psnr_bicubic: " in output
    assert "Best:" not in output  # of what? there is one iteration
    pictures = {path.name for path in Path("results/tiny/visualization/held_out").iterdir()}
    assert pictures == {
        "0_mine_tau0.png",
        "0_mine_tau0.8_0.png",
        "0_mine_tau0.8_1.png",
        "0_mine_bicubic.png",
        "0_mine_grid.png",
    }
    assert not Path("experiments").exists() and list(Path("results/tiny").glob("test_tiny_*.log"))


def test_what_only_a_training_obeys_is_accepted_and_not_offered(capsys: pytest.CaptureFixture[str]) -> None:
    for command, is_offered in (("train", True), ("test", False)):
        with pytest.raises(SystemExit):
            basicsr_command([command, "--help"])
        text = capsys.readouterr().out
        assert [option in text for option in ("--auto_resume", "--debug", "--launcher")] == [is_offered] * 2 + [True]


def test_mistakes_get_one_line(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for changes, message in (([], "net.pth does not exist"), (["val=none"], "val is missing")):
        with pytest.raises(SystemExit) as stop:
            basicsr_command([*TEST, *changes])
        errors = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2 and len(errors) == 1 and message in errors[0]
    assert not Path("results").exists()


@pytest.mark.slow
def test_set5_through_basicsr_test(workplace: Path, shared_data: Path) -> None:
    untrained_network("untrained.pth")
    opt = yaml.safe_load(Path("tiny.yml").read_text())
    opt["name"] = "on_set5"
    opt["path"] = {"pretrain_network_g": "untrained.pth"}
    set5 = {"dataroot_gt": str(shared_data / "Set5/HR"), "dataroot_lq": str(shared_data / "Set5/LRx4")}
    dataset = {"name": "Set5", "type": "PairedImageDataset", "io_backend": {"type": "disk"}, **set5}
    opt["datasets"] = {"test_1": dataset}
    Path("test.yml").write_text(yaml.safe_dump(opt))
    output = run(BIN / "basicsr", "test", "-opt", "test.yml")
    bicubic = next(line for line in output.splitlines() if "psnr_bicubic" in line)
    assert "28.4" in bicubic  # benchmarks: bicubic on Set5 x4, Y, border 4, is 28.42 dB
    pictures = {path.name for path in (workplace / "results" / "on_set5" / "visualization" / "Set5").iterdir()}
    assert {"baby_on_set5_tau0.png", "baby_on_set5_tau0.8_1.png", "woman_on_set5_grid.png"} <= pictures
    assert len(pictures) == 5 * 5
