"""What BasicSR's option files say loosely is taken as it is meant, with a note; this project's sections stay strict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from srflow_plugin.errors import UserError
from srflow_plugin.options.check import load_checked
from srflow_plugin.options.files import force_options
from srflow_plugin.options.schema import Section
from srflow_plugin.training.setup import check_options

# An option file as BasicSR's are written, for its SRModel.
THEIRS = """
name: theirs
model_type: SRModel
scale: 4
num_gpu: 0
manual_seed: 0
datasets:
  train:
    name: a
    type: PairedImageDataset
    dataroot_gt: HR
    dataroot_lq: LR
    filename_tmpl: '{}'
    io_backend:
      type: disk
    gt_size: 16
    use_hflip: true
    use_rot: true
    num_worker_per_gpu: 0
    batch_size_per_gpu: 1
    prefetch_mode: ~
  val:
    name: b
    type: PairedImageDataset
    dataroot_gt: HR
    dataroot_lq: LR
    io_backend:
      type: disk
network_g:
  type: MSRResNet
  num_in_ch: 3
  num_out_ch: 3
  num_feat: 4
  num_block: 1
path:
  pretrain_network_g: ~
  strict_load_g: true
  resume_state: ~
train:
  ema_decay: 0.999
  optim_g:
    type: Adam
    lr: !!float 2e-4
    weight_decay: 0
    betas: [0.9, 0.99]
  scheduler:
    type: CosineAnnealingRestartLR
    periods: [250000, 250000]
    restart_weights: [1, 1]
    eta_min: !!float 1e-7
  total_iter: 500000
  warmup_iter: -1
  pixel_opt:
    type: L1Loss
    loss_weight: 1.0
    reduction: mean
val:
  val_freq: !!float 5e3
  save_img: false
  metrics:
    psnr:
      type: calculate_psnr
      crop_border: 4
      test_y_channel: false
logger:
  print_freq: 100
  save_checkpoint_freq: !!float 5e3
  use_tb_logger: true
  wandb:
    project: ~
    resume_id: ~
dist_params:
  backend: nccl
  port: 29500
"""

# Entries -> the note, and where a value has come to be.
LOOSE: dict[str, tuple[list[str], str, str, Any]] = {
    "a float that is whole": (["train:total_iter=4e5", "logger:print_freq=1e2"], "", "logger.print_freq", 100),
    "in our own sections, too": (["datasets:train:num_worker_per_gpu=0.0"], "", "datasets.train.num_worker_per_gpu", 0),
    "retired": (["datasets:train:use_shuffle=true"], "datasets.train.use_shuffle changes nothing: training", "", None),
    "unknown in a data set": (["datasets:val:cache_data=1"], "datasets.val.cache_data changes nothing", "", None),
    "unknown in train": (["train:tsa_iter=5"], "train.tsa_iter changes nothing", "", None),
    "misspelt": (["path:strict_load=1"], "path.strict_load changes nothing; did you mean strict_load_g?", "", None),
    "unknown in the logger": (["logger:verbose=1"], "logger.verbose changes nothing", "", None),
    "unknown at the top": (["crop_border=4"], "crop_border changes nothing", "", None),
    "the mean of EDVR": (["network_g:ema_decay=0.9"], "network_g.ema_decay belongs in", "train.ema_decay", 0.999),
    "the mean, where nothing stands": (
        ["train={total_iter: 1, optim_g: {type: Adam, lr: 1}, scheduler: {type: MultiStepLR, milestones: [1]}}",
         "network_g:ema_decay=0.9"], "network_g.ema_decay belongs in train", "train.ema_decay", 0.9,
    ),
    "images of RCAN's test": (["save_img=true"], "save_img belongs in val", "val.save_img", False),
    "more GPUs than there are": (["num_gpu=99"], "num_gpu: 99, and this machine has 0: on the CPU", "num_gpu", 99),
    "a prefetcher for GPUs": (["datasets:train:prefetch_mode=cuda"], "prefetch_mode: cuda, and this", "", None),
    "no validation": (["val=none"], "val is missing: nothing is validated", "", None),
    "no data to validate on": (["datasets:val=none"], "datasets.val is missing: nothing is validated", "", None),
    "a best that is not measured": (["logger:keep_best=psnrr"], "keep_best: psnrr is never measured", "", None),
    "nothing to measure": (["val:metrics=none", "logger:keep_best=psnr"], "keep_best: psnr is never", "", None),
}  # fmt: skip


def write(folder: Path, *changes: str) -> Path:
    """Write the file with changes; a section that becomes none is left out."""
    opt: dict[str, Any] = yaml.safe_load(THEIRS)
    force_options(opt, changes)
    opt["datasets"] = {phase: dataset for phase, dataset in opt["datasets"].items() if dataset}
    file = folder / "theirs.yml"
    file.write_text(yaml.safe_dump(opt))
    return file


def look_up(opt: Section, where: str) -> Any:
    value: Any = opt
    for key in where.split("."):
        value = value[key]
    return value


def test_a_file_as_basicsrs_are_written_is_right(tmp_path: Path) -> None:
    assert check_options(write(tmp_path)) == []


@pytest.mark.parametrize("what", LOOSE)
def test_what_is_said_loosely_is_taken_and_noted(what: str, tmp_path: Path) -> None:
    changes, note, where, value = LOOSE[what]
    file = write(tmp_path, *changes)
    assert note in "; ".join(check_options(file))
    opt, _ = load_checked(file)
    if where:
        assert look_up(opt, where) == value and type(look_up(opt, where)) is type(value)


@pytest.mark.parametrize("key", ["train:tsa_iter=5", "val:cache=1", "crop_border=4", "logger:verbose=1"])
def test_this_projects_sections_stay_strict(key: str, tmp_path: Path) -> None:
    file = write(tmp_path, "model_type=SRFlowModel", "train:nll_opt={type: NLLLoss}", key)
    with pytest.raises(UserError, match="is no option"):
        load_checked(file)


def test_a_test_may_say_at_the_top_what_belongs_in_val(tmp_path: Path) -> None:
    file = write(tmp_path, "train=none", "val=none", "logger=none", "save_img=true", "suffix=x")
    opt, notes = load_checked(file)
    assert opt["val"] == {"save_img": True, "suffix": "x"}
    assert len(notes) == 2
