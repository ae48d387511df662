"""The commands as a user types them, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from srflow_plugin import SRFlowNet
from srflow_plugin.cli.main import srflow_command

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[1]


def run(*command: str | Path, code: int = 0) -> str:
    """Run a command in the current folder; return what it printed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=300)
    output = done.stdout + done.stderr
    assert done.returncode == code, output
    return output


def state(path: str) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["params"]


def test_train_and_resume(workplace: Path) -> None:
    output = run(BIN / "basicsr", "train", "-opt", "tiny.yml")
    assert "Model [SRFlowModel] is created" in output
    assert "ActNorm layers are initialised" in output
    assert "l_nll" in output and "psnr_bicubic" in output
    experiment = workplace / "experiments" / "tiny"
    assert {path.name for path in (experiment / "models").iterdir()} == {"net_g_2.pth", "net_g_latest.pth"}
    assert (experiment / "training_states" / "2.state").exists()
    assert (experiment / "visualization" / "0" / "0_2_grid.png").exists()
    assert list((workplace / "tb_logger" / "tiny").iterdir())
    assert list(experiment.glob("train_tiny_*.log")) and (experiment / "tiny.yml").exists()

    longer = ["--force_yml", "train:total_iter=4"]
    output = run(BIN / "basicsr", "train", "-opt", "tiny.yml", "--auto_resume", *longer)
    assert "Resuming training from epoch: 0, iter: 2" in output
    assert "ActNorm layers are initialised" not in output
    assert "iter:       2," not in output and "iter:       3," in output and "iter:       4," in output
    assert "lr:(5.000e-04" in output  # the schedule goes on, too
    before, after = (state(f"experiments/tiny/models/net_g_{name}.pth") for name in ("2", "4"))
    assert before.keys() == after.keys() and any(not torch.equal(before[key], after[key]) for key in before)


def test_set5_through_basicsr_test(workplace: Path, shared_data: Path) -> None:
    opt = yaml.safe_load(Path("tiny.yml").read_text())
    arguments = {key: value for key, value in opt["network_g"].items() if key != "type"}
    torch.save({"params": SRFlowNet(**arguments).state_dict()}, "untrained.pth")
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


def torchrun(*command: str | Path) -> str:
    return run(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", *command)


@pytest.fixture
def one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes with two threads each, on two cores, would wait for each other most of the time."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.usefixtures("one_thread_each")
def test_two_processes_train(workplace: Path) -> None:
    output = torchrun("-m", "srflow_plugin", "train", "-opt", "tiny.yml")
    assert "World size (gpu number): 2" in output
    assert "psnr_tau0.8" in output
    assert all(value.isfinite().all() for value in state("experiments/tiny/models/net_g_latest.pth").values())


@pytest.mark.usefixtures("one_thread_each", "workplace")
def test_two_processes_agree() -> None:
    torchrun(Path(__file__).with_name("ranks_agree.py"))


def test_mistakes_end_with_code_2_and_no_traceback(workplace: Path) -> None:
    for command in ([BIN / "basicsr"], [sys.executable, "-m", "srflow_plugin"]):
        output = run(*command, "train", "-opt", "tiny.yml", "--force_yml", "train:total_itre=4", code=2)
        assert "did you mean total_iter?" in output and "Traceback" not in output
    assert not (workplace / "experiments").exists()


def test_a_plugin_registers_through_its_entry_point(workplace: Path) -> None:
    # what `pip install` of a third-party package leaves behind
    (workplace / "their_plugin.py").write_text(
        "import torch\n"
        "from basicsr.utils.registry import LOSS_REGISTRY\n"
        "@LOSS_REGISTRY.register()\n"
        "class TheirLoss(torch.nn.Module):\n"
        "    def __init__(self, loss_weight=1.0):\n"
        "        super().__init__()\n"
        "    def forward(self, nll):\n"
        "        return nll.mean()\n"
    )
    info = workplace / "their_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their_plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[basicsr.plugins]\ntheirs = their_plugin\n")
    entries = ["train:nll_opt:type=TheirLoss", "val:temperature=0", "train:total_iter=1"]
    output = run(sys.executable, "-m", "srflow_plugin", "train", "-opt", "tiny.yml", "--force_yml", *entries)
    assert "Loss [TheirLoss] is created" in output

    (workplace / "their_plugin.py").write_text("import no_such_module")
    output = run(sys.executable, "-m", "srflow_plugin", "train", "-opt", "tiny.yml", code=2)
    assert "plugin theirs (their_plugin) cannot be imported" in output and "Traceback" not in output


def test_prepare(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert srflow_command(["prepare", "images/train", "-o", "out/all", "--workers", "1"]) == 0
    assert "3 pairs" in capsys.readouterr().out
    assert sorted(path.name for path in Path("out").iterdir()) == ["all_HR.lmdb", "all_LRx4.lmdb"]
    with pytest.raises(SystemExit) as stop:
        srflow_command(["prepare", "nowhere", "-o", "out/none"])
    assert stop.value.code == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and "nowhere is not a folder" in errors[0]
