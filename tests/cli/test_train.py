"""basicsr train as a user types it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
import torch

from srflow_plugin import __version__
from srflow_plugin.cli.main import all_commands, basicsr_command
from srflow_plugin.training.distributed import LAUNCHERS_VARIABLES
from tests.helpers import BIN, run, run_python, saved_networks, train

THEIR_LOSS = (
    "import torch\n"
    "from basicsr.utils.registry import LOSS_REGISTRY\n"
    "@LOSS_REGISTRY.register()\n"
    "class TheirLoss(torch.nn.Module):\n"
    "    def __init__(self, loss_weight=1.0):\n"
    "        super().__init__()\n"
    "    def forward(self, nll):\n"
    "        return nll.mean()\n"
)
WITH_THEIRS = ["train:nll_opt:type=TheirLoss", "val:temperature=0", "train:total_iter=1", "logger:use_tb_logger=false"]


@pytest.mark.slow
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
    before, after = (saved_networks("tiny", iteration)["params"] for iteration in (2, 4))
    assert before.keys() == after.keys() and any(not torch.equal(before[key], after[key]) for key in before)


def test_a_training_in_this_process(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("val=none") == 0
    output = capsys.readouterr().err
    assert "Model [SRFlowModel] is created" in output and "iter:       2," in output
    assert basicsr_command(["train", "-opt", "tiny.yml", "--debug", "--force_yml", "val=none"]) == 0
    assert Path("experiments/debug_tiny/models/net_g_latest.pth").exists()


@pytest.mark.slow
def test_mistakes_end_with_code_2_and_no_traceback(workplace: Path) -> None:
    for command in ([BIN / "basicsr"], [sys.executable, "-m", "srflow_plugin"]):
        output = run(*command, "train", "-opt", "tiny.yml", "--force_yml", "train:total_itre=4", code=2)
        assert "did you mean total_iter?" in output and "Traceback" not in output
    assert not (workplace / "experiments").exists()


def test_mistakes_of_the_file_are_told_before_torch_is_there(workplace: Path) -> None:
    done = run_python(
        "import sys\n"
        "from srflow_plugin.cli.main import basicsr_command\n"
        "try:\n"
        "    basicsr_command(['train', '-opt', 'tiny.yml', '--force_yml', 'train.total_itre=4'])\n"
        "except SystemExit as stop:\n"
        "    print(stop.code, 'torch' in sys.modules)\n"
    )
    assert done.stdout == "2 False\n"
    assert done.stderr == "basicsr: error: train.total_itre is no option; did you mean total_iter?\n"


@pytest.mark.slow
def test_a_plugin_registers_through_its_entry_point(workplace: Path) -> None:
    # what `pip install` of a third-party package leaves behind
    (workplace / "their_plugin.py").write_text(THEIR_LOSS)
    info = workplace / "their_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their_plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[basicsr.plugins]\ntheirs = their_plugin\n")
    command = [sys.executable, "-m", "srflow_plugin", "train", "-opt", "tiny.yml"]
    output = run(*command, "--force_yml", *WITH_THEIRS)
    assert "Loss [TheirLoss] is created" in output
    assert re.search(r"INFO: Plugins: .*theirs 1\.0 \(.*their_plugin\.py\)", output)
    log = next((workplace / "experiments" / "tiny").glob("*.log")).read_text()
    assert f"theirs 1.0 ({workplace / 'their_plugin.py'})" in log and f"srflow_plugin {__version__} (" in log

    assert "TheirLoss' is not known" in run(*command, "--no-plugins", "--force_yml", *WITH_THEIRS, code=2)
    (workplace / "their_plugin.py").write_text("import no_such_module")
    output = run(*command, code=2)
    assert "plugin theirs (their_plugin) cannot be imported" in output and "Traceback" not in output


@pytest.mark.slow
def test_a_plugin_is_a_module_in_the_working_folder(workplace: Path) -> None:
    (workplace / "their_plugin.py").write_text(THEIR_LOSS)
    for command in ([BIN / "basicsr"], [sys.executable, "-m", "srflow_plugin"]):
        train_theirs = [*command, "train", "-opt", "tiny.yml", "--force_yml", *WITH_THEIRS]
        output = run(*train_theirs, "--no-plugins", "--plugin", "their_plugin")
        assert "Loss [TheirLoss] is created" in output
        assert re.search(r"Plugins: their_plugin no version \(.*their_plugin\.py\)\.", output)
        output = run(*train_theirs, code=2)
        assert "train.nll_opt.type: 'TheirLoss' is not known" in output
        (workplace / "experiments").rename(workplace / f"experiments_{len(command)}")


def test_a_plugin_that_cannot_be_imported_is_named(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(workplace)
    (workplace / "faulty_plugin.py").write_text("1 / 0")
    for module, fault in (("faulty_plugin", "ZeroDivisionError"), ("no_such_module", "ModuleNotFoundError")):
        with pytest.raises(SystemExit) as stop:
            basicsr_command(["train", "-opt", "tiny.yml", "--plugin", module])
        errors = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2 and len(errors) == 1
        assert f"plugin {module} ({module}) cannot be imported: {fault}(" in errors[0]


@pytest.mark.parametrize(
    ("launcher", "message"),
    [
        ("pytorch", "RANK is not set, so that no launcher has started this process; start it with `torchrun"),
        ("slurm", "this process is not part of a Slurm step; start it with `srun python"),
    ],
)
def test_a_launcher_that_did_not_start_the_process_is_named(
    launcher: str, message: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_") or name in LAUNCHERS_VARIABLES]:
        monkeypatch.delenv(name)
    with pytest.raises(SystemExit) as stop:
        basicsr_command(["train", "-opt", "tiny.yml", "--launcher", launcher])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--launcher {launcher}: {message}" in line


@pytest.mark.parametrize("rank", ["--local-rank=0", "--local_rank=1"])
def test_the_rank_of_old_launchers_is_taken_before_the_command(rank: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        all_commands([rank, "train", "-opt", "nowhere.yml"])
    assert stop.value.code == 2 and "nowhere.yml: No such file" in capsys.readouterr().err
