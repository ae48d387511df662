"""The commands as a user types them, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import lmdb
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
def test_two_processes_agree_and_take_the_steps_of_one() -> None:
    script = Path(__file__).with_name("ranks_agree.py")
    run(sys.executable, script, "10", "one.pt")
    torchrun(script, "10", "two.pt")
    torchrun(script, "10", "parts.pt", "2")
    one, *others = (torch.load(f"{name}.pt", weights_only=True) for name in ("one", "two", "parts"))
    for other in others:
        for key, value in one["weights"].items():
            assert (value.double() - other["weights"][key].double()).abs().max() < 1e-9, key
        for step, other_step in zip(one["log"], other["log"], strict=True):
            assert other_step == pytest.approx(step, abs=1e-9)


TEST_SET = """
name: NAME
model_type: SRFlowModel
scale: 4
num_gpu: 0
datasets:
  test_1:
    name: three
    type: PairedImageDataset
    dataroot_gt: data/train_HR.lmdb
    dataroot_lq: data/train_LRx4.lmdb
    io_backend: {type: lmdb}
path: {pretrain_network_g: net.pth}
val:
  save_img: true
  temperature: [0, 0.8]
  num_samples: 2
  metrics:
    psnr: {type: calculate_psnr, crop_border: 4}
"""


@pytest.mark.usefixtures("one_thread_each")
def test_the_table_is_the_same_for_any_number_of_processes(workplace: Path) -> None:
    network = yaml.safe_load(Path("tiny.yml").read_text())["network_g"]
    weights = SRFlowNet(**{key: value for key, value in network.items() if key != "type"}).state_dict()
    torch.save({"params": weights}, "net.pth")
    tables, pictures = [], []
    for name in ("one", "two"):
        Path("test.yml").write_text(TEST_SET.replace("NAME", name) + yaml.safe_dump({"network_g": network}))
        command = ["-m", "srflow_plugin", "test", "-opt", "test.yml"]
        output = run(sys.executable, *command) if name == "one" else torchrun(*command)
        tables.append([line.split("Best")[0] for line in output.splitlines() if "# psnr" in line])
        folder = workplace / "results" / name / "visualization" / "three"
        pictures.append({path.name.replace(name, ""): path.read_bytes() for path in folder.iterdir()})
    assert len(tables[0]) == 2 and tables[0] == tables[1]
    assert len(pictures[0]) == 3 * 4 and pictures[0] == pictures[1]

    with lmdb.open("data/train_LRx4.lmdb") as database, database.begin(write=True) as transaction:
        transaction.put(b"1", b"broken")  # the second process finds it, and all stop
    output = run(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", *command, code=1)
    assert output.count("error: data/train_LRx4.lmdb: 1 is not a readable image") == 2


@pytest.mark.usefixtures("one_thread_each")
def test_slurm_starts_the_processes(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scontrol = workplace / "scontrol"  # stands in for Slurm's
    scontrol.write_text("#!/bin/sh\n[ \"$*\" = 'show hostnames two[1-2]' ] && echo localhost && echo elsewhere\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{workplace}:{os.environ['PATH']}")
    monkeypatch.setenv("MASTER_PORT", str(29500 + os.getpid() % 1000))
    command = [sys.executable, "-m", "srflow_plugin", "train", "-opt", "tiny.yml", "--launcher", "slurm"]
    processes = []
    for rank in range(2):
        task = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": "0", "SLURM_NTASKS": "2", "SLURM_NODELIST": "two[1-2]"}
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, env={**os.environ, **task}, stdout=pipe, stderr=pipe, text=True))
    outputs = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "World size (gpu number): 2" in outputs[0] and "World size" not in outputs[1]


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
    assert len(errors) == 1 and "nowhere is no folder, archive" in errors[0]
