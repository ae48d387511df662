"""Several processes: they agree, they share the work, and they are started as clusters do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
import yaml
from basicsr.archs import build_network

from srflow_plugin.images.files import write_image
from srflow_plugin.training import distributed
from srflow_plugin.training.distributed import any_rank, gather, gather_work, leave, mean_over_ranks, own_share
from tests.helpers import ROOT, UNIX, WITHOUT_VALIDATION, run, saved_networks, torchrun, truncate, untrained_network
from tests.stress.torture import descendants


def test_a_single_process_is_all_there_are() -> None:
    value = torch.tensor([1.0, 2.0])
    assert mean_over_ranks(value) is value
    assert any_rank(True) and not any_rank(False)
    assert gather("result") == ["result"] and gather_work(lambda: 5) == [5]
    assert list(own_share(3)) == [0, 1, 2]
    leave()  # nothing to leave

    def work() -> int:
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        gather_work(work)


RANKS = """
import torch
from srflow_plugin.training import distributed
distributed.init_dist("pytorch")
rank = torch.distributed.get_rank()
assert distributed.mean_over_ranks(torch.tensor([rank, 2.0])).tolist() == [0.5, 2.0]
assert distributed.any_rank(rank == 1) and not distributed.any_rank(False)
assert distributed.gather({"rank": rank}) == [{"rank": 0}, {"rank": 1}]
assert list(distributed.own_share(5)) == [[0, 2, 4], [1, 3]][rank]
assert distributed.gather_work(lambda: rank) == [0, 1]
def work():
    if rank == 1:
        raise ValueError("a fault of rank 1")
try:
    distributed.gather_work(work)
except ValueError as error:
    assert str(error) == "a fault of rank 1"
else:
    raise AssertionError("raised on its own rank only")
distributed.leave()
assert not torch.distributed.is_initialized()
print("rank", rank, "is done")
"""


@pytest.mark.slow
def test_two_processes_tell_each_other(tmp_path: Path) -> None:
    (tmp_path / "ranks.py").write_text(RANKS)
    output = torchrun(tmp_path / "ranks.py")
    assert "rank 0 is done" in output and "rank 1 is done" in output


@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
def test_two_processes_train() -> None:
    output = torchrun("-m", "srflow_plugin", "train", "-opt", "tiny.yml")
    assert "World size (gpu number): 2" in output
    assert "psnr_tau0.8" in output
    assert all(value.isfinite().all() for value in saved_networks("tiny")["params"].values())


@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("noise", "reduction"), [("none", "mean"), ("uniform", "sum"), ("gaussian", "mean"), ("conditional", "sum")]
)
def test_two_processes_agree_and_take_the_steps_of_one(
    noise: str, reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    script = ["-m", "tests.stress.ranks_agree"]
    run(sys.executable, *script, "10", "one.pt", "1", noise, reduction)
    torchrun(*script, "10", "two.pt", "1", noise, reduction)
    torchrun(*script, "10", "parts.pt", "2", noise, reduction)
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


@pytest.mark.slow
def test_the_table_is_the_same_for_any_number_of_processes(workplace: Path) -> None:
    untrained_network("net.pth")
    network = yaml.safe_load(Path("tiny.yml").read_text())["network_g"]
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
    output = torchrun(*command, code=1)
    assert output.count("error: data/train_LRx4.lmdb: 1 is not a readable image") == 2


@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
def test_a_model_of_basicsr_is_tested_by_any_number_of_processes() -> None:
    network = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "num_grow_ch": 4}
    torch.manual_seed(0)
    torch.save({"params": build_network(dict(network)).state_dict()}, "net.pth")
    found = []
    for name in ("one", "two"):
        sections = yaml.safe_load(TEST_SET.replace("NAME", name).replace("SRFlowModel", "SRModel"))
        sections["network_g"] = network
        sections["val"] = {"save_img": True, "suffix": None, "metrics": sections["val"]["metrics"]}
        Path("test.yml").write_text(yaml.safe_dump(sections))
        command = ["-m", "srflow_plugin", "test", "-opt", "test.yml"]
        output = run(sys.executable, *command) if name == "one" else torchrun(*command)
        table = [line.split("Best")[0] for line in output.splitlines() if "# psnr" in line]
        folder = Path("results", name, "visualization", "three")
        found.append((table, {path.name.replace(name, ""): path.read_bytes() for path in folder.iterdir()}))
    assert len(found[0][0]) == 1 and len(found[0][1]) == 3 and found[0] == found[1]

    with lmdb.open("data/train_LRx4.lmdb") as database, database.begin(write=True) as transaction:
        transaction.put(b"1", b"broken")
    output = torchrun(*command, code=1)  # the first process finds it, and all stop
    assert output.count("error: data/train_LRx4.lmdb: 1 is not a readable image") == 2


def test_the_connection_is_one_for_cpus_where_no_gpu_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    monkeypatch.setattr(torch.distributed, "init_process_group", joined.append)
    monkeypatch.setattr(torch.distributed, "new_group", lambda **options: None)
    for name in distributed.LAUNCHERS_VARIABLES:
        monkeypatch.setenv(name, "0")
    distributed.init_dist("pytorch", use_gpu=False)
    distributed.init_dist("pytorch")
    distributed.init_dist("pytorch", backend="gloo")
    distributed.init_dist("pytorch", backend="nccl", use_gpu=False)  # as BasicSR's files say
    assert joined == ["gloo", "nccl", "gloo", "gloo"]


@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
def test_images_skipped_by_any_process_are_named_once_and_counted() -> None:
    folders = [Path("images", kind) for kind in ("HR", "LR")]
    sections = yaml.safe_load(Path("tiny.yml").read_text())
    for folder, size in zip(folders, (32, 8), strict=True):
        folder.mkdir(parents=True)
        for number in range(8):
            path = folder / f"{number}.png"
            write_image(path, np.full((size, size, 3), 20 * number, np.uint8))
            if folder.name == "HR" and number % 2:
                truncate(path)
    train = sections["datasets"]["train"]
    train.update(dataroot_gt="images/HR", dataroot_lq="images/LR", io_backend={"type": "disk"}, skip_bad_images=True)
    train["dataset_enlarge_ratio"] = 1
    sections["train"]["total_iter"] = 4
    Path("skip.yml").write_text(yaml.safe_dump(sections))
    output = torchrun("-m", "srflow_plugin", "train", "-opt", "skip.yml", "--force_yml", WITHOUT_VALIDATION)
    named = [line for line in output.splitlines() if "skipped: images/HR" in line]
    assert len(named) == 4 and all(sum(f"HR/{number}.png" in line for line in named) == 1 for number in (1, 3, 5, 7))
    assert "images were skipped or converted, 4 different." in output


STOPPED = """
import os, sys
from pathlib import Path
from srflow_plugin.training import stop
from srflow_plugin.training.pipelines import train_pipeline
from srflow_plugin.training.setup import load_run
from srflow_plugin.training.distributed import leave
import signal
run = load_run("sr.yml", is_train=True, launcher="pytorch")
from basicsr.models.sr_model import SRModel
test = SRModel.test
def first_image(self):
    os.kill(os.getpid(), signal.SIGTERM)  # the rank that validates
    test(self)
SRModel.test = first_image
SRModel.model_to_device = lambda self, net: net  # BasicSR's own asks for a GPU
code = train_pipeline(run)
Path(f"rank {run.opt['rank']}").write_text(str(code))
leave()
"""


@UNIX
@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
def test_a_model_of_basicsr_stopped_in_a_validation_stops_on_all_ranks() -> None:
    sections = yaml.safe_load(Path("tiny.yml").read_text())
    network = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "num_grow_ch": 4}
    sections.update(model_type="SRModel", network_g=network, find_unused_parameters=True)
    sections["train"] = {
        **{key: sections["train"][key] for key in ("optim_g", "scheduler", "total_iter")},
        "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
    }
    metrics = {"psnr": {"type": "calculate_psnr", "crop_border": 4}}
    sections["val"] = {"val_freq": 2, "save_img": False, "metrics": metrics}
    sections["datasets"]["val"].update(dataroot_gt="data/train_HR.lmdb", dataroot_lq="data/train_LRx4.lmdb")
    Path("sr.yml").write_text(yaml.safe_dump(sections))
    Path("stopped.py").write_text(STOPPED)
    output = torchrun("stopped.py")
    assert [Path(f"rank {rank}").read_text() for rank in range(2)] == ["0", "0"], output
    assert "--auto_resume goes on" in output


@UNIX
@pytest.mark.slow
def test_slurm_starts_the_processes(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scontrol = workplace / "scontrol"  # stands in for Slurm's
    scontrol.write_text("#!/bin/sh\n[ \"$*\" = 'show hostnames two[1-2]' ] && echo localhost && echo elsewhere\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{workplace}:{os.environ['PATH']}")
    monkeypatch.setenv("MASTER_PORT", str(29500 + os.getpid() % 1000))
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    command = [sys.executable, "-m", "srflow_plugin", "train", "-opt", "tiny.yml", "--launcher", "slurm"]
    processes = []
    for rank in range(2):
        task = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": "0", "SLURM_NTASKS": "2", "SLURM_NODELIST": "two[1-2]"}
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, env={**os.environ, **task}, stdout=pipe, stderr=pipe, text=True))
    outputs = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "World size (gpu number): 2" in outputs[0] and "World size" not in outputs[1]


# -- machines that come and go -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="groups of processes are POSIX's")
def test_one_of_two_machines_is_lost_and_the_other_goes_on_alone(workplace: Path) -> None:
    """Two agents of torchrun stand for two machines; the second is killed with its process."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    elastic = ["--nnodes=1:2", "--nproc_per_node=1", "--max-restarts=5", "--rdzv-backend=c10d", "--rdzv-id=it"]
    quick = "last_call_timeout=2,keep_alive_interval=1,keep_alive_max_attempt=2"
    changes = ["val=none", "train:total_iter=60", "logger:save_checkpoint_freq=2", "logger:use_tb_logger=false"]
    agents = []
    for number in (1, 0):
        where = [f"--rdzv-endpoint=localhost:{port}", f"--rdzv-conf={quick},is_host={number}"]
        command = [sys.executable, "-m", "torch.distributed.run", *elastic, *where, "-m", "srflow_plugin", "train"]
        arguments = ["-opt", "tiny.yml", "--auto_resume", "--force_yml", *changes]
        with Path(f"agent{number}.log").open("w") as log:
            agents.append(subprocess.Popen([*command, *arguments], stderr=log, start_new_session=True))
    try:
        while not list(Path("experiments").glob("tiny/training_states/*.state")):
            assert agents[0].poll() is None, Path("agent1.log").read_text()
            time.sleep(0.1)
        for process in (*descendants(agents[1].pid), agents[1].pid):
            os.kill(process, signal.SIGKILL)
        assert agents[0].wait(200) == 0, Path("agent1.log").read_text()
    finally:
        for agent in agents:
            agent.kill()
            agent.wait()
    told = "".join(Path(f"agent{number}.log").read_text() for number in (0, 1))
    assert "World size (gpu number): 2" in told and "World size (gpu number): 1" in told
    assert "Resuming training from" in told
    assert Path("experiments/tiny/training_states/60.state").exists()
