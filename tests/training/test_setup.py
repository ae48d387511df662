"""From option files to runs: completed as BasicSR does, changed, seeded, prepared, resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from srflow_plugin.errors import UserError
from srflow_plugin.options.files import load_options
from srflow_plugin.options.resources import check_weights
from srflow_plugin.training.setup import _check_processes, check_options, complete_options, load_run
from tests.helpers import ROOT, truncate, untrained_network

SHIPPED = sorted((ROOT / "options").glob("*.yml"))


def test_options_are_completed_as_basicsr_does(workplace: Path) -> None:
    run = load_run("tiny.yml", is_train=True)
    opt, experiment = run.opt, workplace / "experiments" / "tiny"
    assert run.opt_file == Path("tiny.yml")
    assert opt["path"]["models"] == str(experiment / "models")
    assert opt["path"]["visualization"] == str(experiment / "visualization")
    assert opt["datasets"]["val"]["phase"] == "val" and opt["datasets"]["val"]["scale"] == 4
    assert (opt["rank"], opt["world_size"], opt["dist"]) == (0, 1, False)
    assert opt["train"]["optim_g"]["lr"] == 1e-3
    assert not experiment.exists()
    opt = load_run("tiny.yml", is_train=True, debug=True).opt
    assert (opt["name"], opt["val"]["val_freq"], opt["logger"]["print_freq"]) == ("debug_tiny", 8, 1)
    assert opt["path"]["models"] == str(workplace / "experiments" / "debug_tiny" / "models")


def test_a_test_has_its_results_in_a_folder_of_ones_choice(workplace: Path) -> None:
    untrained_network("net.pth")
    elsewhere = workplace / "elsewhere"
    run = load_run(Path("tiny.yml"), is_train=False, force=["path.pretrain_network_g=net.pth"], root=elsewhere)
    assert run.opt["path"]["results_root"] == str(elsewhere / "results" / "tiny")
    assert run.opt["path"]["visualization"] == str(elsewhere / "results" / "tiny" / "visualization")
    assert run.opt["root_path"] == str(elsewhere) and not run.opt["is_train"]
    run.lock.close()
    assert not elsewhere.exists()


def test_changes_are_written_with_colons_or_dots(workplace: Path) -> None:
    force = ["train.total_iter=7", "train:grad_clip=0.5", "datasets.train.gt_size=24", "val.metrics.ssim:type=none"]
    opt = load_run("tiny.yml", is_train=True, force=force[:3]).opt
    assert (opt["train"]["total_iter"], opt["train"]["grad_clip"], opt["datasets"]["train"]["gt_size"]) == (7, 0.5, 24)
    with pytest.raises(UserError, match=r"val\.metrics\.ssim is no option"):
        load_run("tiny.yml", is_train=True, force=force[3:])


def test_home_folders_are_written_as_people_do(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(workplace))
    untrained_network("net.pth")
    force = ["path.pretrain_network_g=~/net.pth", "datasets.train.dataroot_gt=~/data/train_HR.lmdb"]
    opt = load_run("tiny.yml", is_train=True, force=force).opt
    assert opt["path"]["pretrain_network_g"] == str(workplace / "net.pth")
    assert opt["datasets"]["train"]["dataroot_gt"] == str(workplace / "data" / "train_HR.lmdb")


def test_seed_zero_is_honoured(workplace: Path) -> None:
    draws = []
    for _ in range(2):
        load_run("tiny.yml", is_train=True, force=["manual_seed=0"])
        draws.append(torch.rand(3))
    assert torch.equal(*draws)
    seeds = {load_run("tiny.yml", is_train=True, force=["manual_seed=none"]).opt["manual_seed"] for _ in range(4)}
    assert all(isinstance(seed, int) and seed > 0 for seed in seeds)


def test_several_gpus_ask_for_a_process_each(workplace: Path) -> None:
    opt = {**load_run("tiny.yml", is_train=True).opt, "num_gpu": 4}
    with pytest.raises(UserError, match=r"torchrun --nproc_per_node=4 -m srflow_plugin train -opt a.yml"):
        _check_processes(opt, "a.yml")
    _check_processes({**opt, "dist": True}, "a.yml")
    _check_processes({**opt, "is_train": False}, "a.yml")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_option_files_pass_every_check_but_the_data(path: Path, tmp_path: Path) -> None:
    is_train = path.stem.startswith("train")
    if path.stem == "train_SRFlow_x4_quick":
        lmdbs = [
            f"datasets:{phase}:dataroot_{kind}={tmp_path}/{phase}_{kind}.lmdb"
            for phase in ("train", "val")
            for kind in ("gt", "lq")
        ]
        load_run(path, is_train=is_train, force=lmdbs, root=tmp_path)
        assert len(list(tmp_path.glob("*.lmdb"))) == 4
    else:
        with pytest.raises(UserError, match="does not exist"):
            load_run(path, is_train=is_train, root=tmp_path)


def test_data_are_prepared_once_everything_else_is_right(workplace: Path) -> None:
    embedded = [
        "datasets.val.prepare=embedded",
        "datasets.val.dataroot_gt=made/HR.lmdb",
        "datasets.val.dataroot_lq=made/LR.lmdb",
    ]
    with pytest.raises(UserError, match=r"nowhere\.pth does not exist"):
        load_run("tiny.yml", is_train=True, force=[*embedded, "path.pretrain_network_g=nowhere.pth"])
    assert not Path("made").exists()
    load_run("tiny.yml", is_train=True, force=embedded)
    assert {path.name for path in Path("made").iterdir()} == {"HR.lmdb", "LR.lmdb"}


def test_checks_that_write_nothing(workplace: Path) -> None:
    before = sorted(workplace.rglob("*"))
    assert check_options(Path("tiny.yml"), with_data=True) == []
    assert check_options(Path("tiny.yml"), ["datasets.train.num_prefetch_queue=1"]) == [
        "datasets.train.num_prefetch_queue changes nothing"
    ]
    nowhere = ["datasets.train.dataroot_gt=nowhere.lmdb"]
    assert check_options(Path("tiny.yml"), nowhere) == []
    with pytest.raises(UserError, match=r"datasets\.train\.dataroot_gt: nowhere\.lmdb does not exist"):
        check_options(Path("tiny.yml"), nowhere, with_data=True)
    assert check_options(Path("tiny.yml"), [*nowhere, "datasets.train.prepare=embedded"], with_data=True) == []
    assert sorted(workplace.rglob("*")) == before


def test_a_file_without_train_is_checked_as_a_test(workplace: Path) -> None:
    with pytest.raises(UserError, match="name the checkpoint to test"):
        check_options(Path("tiny.yml"), ["train=none"])
    test = ["train=none", "path.pretrain_network_g=net.pth"]
    assert check_options(Path("tiny.yml"), test) == []
    with pytest.raises(UserError, match=r"path\.pretrain_network_g: net\.pth does not exist"):
        check_options(Path("tiny.yml"), test, with_data=True)
    untrained_network("net.pth")
    truncate(Path("data/val_LRx4.lmdb/data.mdb"))
    with pytest.raises(UserError, match=r"val_LRx4\.lmdb/data\.mdb cannot be read"):
        check_options(Path("tiny.yml"), test, with_data=True)


@pytest.mark.parametrize(
    "path", [path for path in SHIPPED if path.stem.startswith("train")], ids=lambda path: path.stem
)
def test_every_training_file_has_a_test_file_for_its_network(path: Path) -> None:
    training, test = load_options(path), load_options(path.with_name(path.name.replace("train", "test")))
    assert test["network_g"] == training["network_g"] and test["model_type"] == training["model_type"]
    assert test["path"]["pretrain_network_g"] == f"experiments/{training['name']}/models/net_g_latest.pth"


@pytest.mark.parametrize("path", [path for path in SHIPPED if "shipped" in path.stem], ids=lambda path: path.stem)
def test_the_networks_of_the_package_have_test_files_that_fit(path: Path) -> None:
    opt = load_options(path)
    opt["is_train"] = False
    complete_options(opt, Path.cwd())
    assert Path(opt["path"]["pretrain_network_g"]).is_file()
    check_weights(opt)
