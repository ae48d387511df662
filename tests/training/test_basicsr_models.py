"""Every model of BasicSR that a CPU can run: trains, validates, saves, stops, and goes on as if it had not stopped.

Each case is what BasicSR's own option file for it says, cut down to tiny networks and images.
docs/how-to/basicsr_models.md has the table, and says why StyleGAN2Model is not here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from srflow_plugin.cli.main import basicsr_command
from srflow_plugin.training.setup import check_options

Section = dict[str, Any]
ADAM = {"type": "Adam", "lr": 1e-4, "weight_decay": 0, "betas": [0.9, 0.99]}
L1 = {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"}
CHARBONNIER = {"type": "CharbonnierLoss", "loss_weight": 1.0, "reduction": "mean"}
GAN = {"type": "GANLoss", "gan_type": "vanilla", "real_label_val": 1.0, "fake_label_val": 0.0, "loss_weight": 5e-3}
PIXEL_TRAIN = {"pixel_opt": L1, "ema_decay": 0.9}
GAN_TRAIN = {**PIXEL_TRAIN, "optim_d": ADAM, "gan_opt": GAN, "net_d_iters": 1, "net_d_init_iters": 0}
IMAGES = {"num_in_ch": 3, "num_out_ch": 3}
RRDB = {"type": "RRDBNet", **IMAGES, "num_feat": 4, "num_block": 1, "num_grow_ch": 4}
UNET = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4, "skip_connection": True}
VGG = {"type": "VGGStyleDiscriminator", "num_in_ch": 3, "num_feat": 2}
EDSR = {"type": "EDSR", **IMAGES, "num_feat": 4, "num_block": 1, "upscale": 4, "res_scale": 1, "img_range": 255.0}
RGB_MEAN = [0.4488, 0.4371, 0.4040]
SWINIR = {
    **{"type": "SwinIR", "upscale": 4, "in_chans": 3, "img_size": 8, "window_size": 4, "img_range": 1.0, "depths": [1]},
    **{"embed_dim": 4, "num_heads": [1], "mlp_ratio": 2, "upsampler": "pixelshuffle", "resi_connection": "1conv"},
}
EDVR = {
    **{"type": "EDVR", **IMAGES, "num_feat": 8, "num_frame": 3, "deformable_groups": 1, "num_extract_block": 1},
    **{"num_reconstruct_block": 1, "center_frame_idx": None, "hr_in": False, "with_predeblur": False},
}
BASICVSR = {"type": "BasicVSR", "num_feat": 4, "num_block": 1, "spynet_path": None}
ICONVSR = {
    **{"type": "IconVSR", "num_feat": 8, "num_block": 1, "keyframe_stride": 2, "temporal_padding": 2},
    **{"spynet_path": None, "edvr_path": None},
}
DEGRADATIONS: Section = {
    **{"l1_gt_usm": True, "percep_gt_usm": True, "gan_gt_usm": False, "gt_usm": True, "gt_size": 32, "queue_size": 4},
    **{"resize_prob": [0.2, 0.7, 0.1], "resize_range": [0.15, 1.5], "gaussian_noise_prob": 0.5, "noise_range": [1, 30]},
    **{"poisson_scale_range": [0.05, 3], "gray_noise_prob": 0.4, "jpeg_range": [30, 95], "second_blur_prob": 0.8},
    **{"resize_prob2": [0.3, 0.4, 0.3], "resize_range2": [0.3, 1.2], "gaussian_noise_prob2": 0.5},
    **{"noise_range2": [1, 25], "poisson_scale_range2": [0.05, 2.5], "gray_noise_prob2": 0.4, "jpeg_range2": [30, 95]},
}
KERNELS = ["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
BLUR = {"kernel_prob": [0.45, 0.25, 0.12, 0.03, 0.12, 0.03], "sinc_prob": 0.1, "blur_sigma": [0.2, 3]}
BLUR |= {"betag_range": [0.5, 4], "betap_range": [1, 2], "blur_kernel_size": 21, "kernel_list": KERNELS}
REAL_DATA = {
    **{"type": "RealESRGANDataset", "meta_info": "list.txt", "final_sinc_prob": 0.8, "use_hflip": True},
    **{"use_rot": False, **BLUR, **{f"{key}2": value for key, value in BLUR.items()}},
}
PAIRS = {"type": "PairedImageDataset", "gt_size": 32, "use_hflip": True, "use_rot": True}
CLIPS = {
    **{"type": "REDSDataset", "dataroot_gt": "clips/GT", "dataroot_lq": "clips/LQ", "dataroot_flow": None},
    **{"meta_info_file": "clips.txt", "val_partition": "REDS4", "num_frame": 3, "gt_size": 64, "interval_list": [1]},
    **{"random_reverse": False, "use_hflip": True, "use_rot": True},
}
TEST_CLIPS = {
    **{"name": "REDS4", "type": "VideoTestDataset", "dataroot_gt": "short/GT", "dataroot_lq": "short/LQ"},
    **{"cache_data": False, "num_frame": 3, "padding": "reflection_circle"},
}
# SpyNet needs 64 LR pixels, IconVSR five frames.
VIDEO = {"train": CLIPS, "val": TEST_CLIPS}
RECURRENT = {
    "train": {**CLIPS, "type": "REDSRecurrentDataset", "gt_size": 256, "num_frame": 2, "test_mode": False},
    "val": {**TEST_CLIPS, "type": "VideoRecurrentTestDataset", "cache_data": True, "num_frame": -1},
}
FLOW_TRAIN = {"pixel_opt": CHARBONNIER, "fix_flow": 5, "flow_lr_mul": 0.125}
HIFACE = {
    **{"type": "HiFaceGAN", "num_in_ch": 3, "num_feat": 4, "use_vae": False, "z_dim": 8, "crop_size": 128},
    **{"norm_g": "spectralspadebatch3x3", "is_train": False},
}
HIFACE_D = {
    **{"type": "HiFaceGANDiscriminator", "num_in_ch": 3, "num_out_ch": 3, "conditional_d": True, "num_feat": 4},
    "norm_d": "spectralinstance",
}
HIFACE_TRAIN = {
    **{"optim_d": ADAM, "pixel_opt": L1, "gan_opt": {**GAN, "type": "MultiScaleGANLoss", "gan_type": "lsgan"}},
}

# Model type and network -> sections that differ from those of `option_file`.
CASES: dict[str, Section] = {
    "SRModel, EDSR": {"network_g": {**EDSR, "rgb_mean": RGB_MEAN}},
    "SRModel, RCAN": {
        "network_g": {**EDSR, "type": "RCAN", "num_group": 1, "squeeze_factor": 2, "rgb_mean": RGB_MEAN},
    },
    "SRModel, MSRResNet": {"network_g": {"type": "MSRResNet", **IMAGES, "num_feat": 4, "num_block": 1, "upscale": 4}},
    "SRModel, SwinIR": {"network_g": SWINIR},
    "SwinIRModel, SwinIR": {"network_g": SWINIR},
    "SRModel, ECBSR": {
        "network_g": {
            **{"type": "ECBSR", **IMAGES, "num_block": 1, "num_channel": 4, "with_idt": False, "act_type": "prelu"},
            "scale": 4,
        },
    },
    "SRModel, RRDBNet": {"network_g": RRDB},
    "SRGANModel, MSRResNet": {
        "network_g": {"type": "MSRResNet", **IMAGES, "num_feat": 4, "num_block": 1, "upscale": 4},
        "network_d": UNET,
        "train": GAN_TRAIN,
    },
    "ESRGANModel, RRDBNet": {"network_g": RRDB, "network_d": UNET, "train": GAN_TRAIN},
    "EDVRModel, EDVR": {
        "network_g": {**EDVR, "with_tsa": True},
        "train": {"pixel_opt": CHARBONNIER, "tsa_iter": 5, "dcn_lr_mul": 1},
        "datasets": VIDEO,
    },
    "VideoBaseModel, EDVR": {"network_g": {**EDVR, "with_tsa": False}, "datasets": VIDEO},
    "VideoRecurrentModel, BasicVSR": {"network_g": BASICVSR, "train": FLOW_TRAIN, "datasets": RECURRENT},
    "VideoRecurrentModel, IconVSR": {
        "network_g": ICONVSR,
        "train": FLOW_TRAIN,
        "datasets": {**RECURRENT, "train": {**RECURRENT["train"], "num_frame": 5}},
    },
    "VideoRecurrentGANModel, BasicVSR": {
        "network_g": BASICVSR,
        "network_d": UNET,
        "train": {**GAN_TRAIN, "lr_flow": 1e-5, "fix_flow": 5},
        "datasets": RECURRENT,
    },
    "RealESRNetModel, RRDBNet": {**DEGRADATIONS, "network_g": RRDB, "datasets": {"train": REAL_DATA}},
    "RealESRGANModel, RRDBNet": {
        **{**DEGRADATIONS, "network_g": RRDB, "network_d": UNET, "train": GAN_TRAIN},
        "datasets": {"train": REAL_DATA},
    },
    "HiFaceGANModel, HiFaceGAN": {
        **{"network_g": HIFACE, "network_d": HIFACE_D, "train": HIFACE_TRAIN, "scale": 1},
        "datasets": {
            "train": {**PAIRS, "dataroot_gt": "faces", "dataroot_lq": "faces", "gt_size": 128},
            "val": {"dataroot_gt": "faces", "dataroot_lq": "faces"},
        },
    },
}


# A CPU takes minutes for a video's frames in float16; what HiFaceGAN computes is beyond its range.
KINDS = (None, "bfloat16", "float16")
NOT_IN_FLOAT16 = ("EDVR", "Video", "HiFaceGAN")
WITH_AMP = [(case, amp) for case in CASES for amp in KINDS if amp != "float16" or not case.startswith(NOT_IN_FLOAT16)]


def option_file(case: str) -> Section:
    """Make a case's option file, with the loose ways of BasicSR's."""
    changes = deepcopy(CASES[case])
    data = changes.pop("datasets", {})
    folders = {"dataroot_gt": "HR", "dataroot_lq": "LR", "io_backend": {"type": "disk"}}
    batch = 1 if "Recurrent" in case else 2  # SpyNet takes its time
    read = {"num_worker_per_gpu": 0, "batch_size_per_gpu": batch, "dataset_enlarge_ratio": 10, "prefetch_mode": None}
    val = {"val": {"name": "val", "type": "PairedImageDataset", **folders, **data.get("val", {})}}
    train = {"optim_g": ADAM, "scheduler": {"type": "MultiStepLR", "milestones": [3, 5], "gamma": 0.5}}
    opt: Section = {
        **{"name": "it", "model_type": case.partition(",")[0], "scale": 4, "num_gpu": 1, "manual_seed": 0},
        "datasets": {"train": {"name": "t", **folders, **(data.get("train") or PAIRS), **read}, **val},
        "path": {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None},
        "val": {
            "val_freq": 4.0 if "Recurrent" in case else 2.0,
            "save_img": False,
            "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 4}},
        },
        "logger": {"print_freq": 1, "save_checkpoint_freq": 2e0, "use_tb_logger": False, "wandb": {"project": None}},
        "dist_params": {"backend": "nccl", "port": 29500},
        **changes,
        "train": {**train, "warmup_iter": -1, "total_iter": 6e0, **(changes.get("train") or PIXEL_TRAIN)},
    }
    if case.startswith("RealESR"):
        opt["datasets"]["train"].pop("dataroot_lq")
    return opt


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, clips and lists, tiny."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)

    def write(file: Path, side: int) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(file)

    for number in range(3):
        write(folder / "HR" / f"{number}.png", 64)
        write(folder / "LR" / f"{number}.png", 16)
        write(folder / "faces" / f"{number}.png", 128)
    for frame in range(100):  # BasicSR counts on as many
        for clips, count in (("clips", 100), ("short", 5)):
            if frame < count:
                write(folder / clips / "GT" / "001" / f"{frame:08d}.png", 256)
                write(folder / clips / "LQ" / "001" / f"{frame:08d}.png", 64)
    (folder / "list.txt").write_text("".join(f"{number}.png\n" for number in range(3)))
    (folder / "clips.txt").write_text("001 100 (256,256,3)\n")
    return folder


@pytest.fixture
def place(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_log: None) -> Iterator[Path]:
    """A working folder with the data, entered."""
    monkeypatch.chdir(tmp_path)
    if os.name == "nt":
        pytest.skip("Windows has no symbolic links without a privilege")
    for item in data.iterdir():
        (tmp_path / item.name).symlink_to(item)
    yield tmp_path


def saved(name: str) -> Section:
    """Read the networks and the state after the last iteration."""
    folder = Path("experiments") / name
    files = [*sorted((folder / "models").glob("*_6.pth")), folder / "training_states" / "6.state"]
    return {file.name: torch.load(file, weights_only=True) for file in files}


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """List where two saved things differ by a bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        return [found for key in one for found in differences(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, list | tuple):
        return [
            found for i, pair in enumerate(zip(one, other, strict=True)) for found in differences(*pair, f"{where}/{i}")
        ]
    same = torch.equal(one, other) if isinstance(one, torch.Tensor) else str(one) == str(other)
    return [] if same else [where]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of PyTorch, about BasicSR's networks
@pytest.mark.parametrize(("case", "amp"), WITH_AMP)
def test_a_model_of_basicsr_goes_on_as_if_it_had_not_stopped(case: str, amp: str | None, place: Path) -> None:
    opt = option_file(case)
    opt["train"]["amp"] = amp
    Path("it.yml").write_text(yaml.safe_dump(opt))
    check_options(Path("it.yml"), with_data=True)
    command = ["train", "-opt", "it.yml", "--force_yml"]
    assert basicsr_command([*command, "name=whole"]) == 0
    assert basicsr_command([*command, "name=part", "train:total_iter=4"]) == 0
    assert basicsr_command([*command, "name=part", "--auto_resume"]) == 0
    whole, part = saved("whole"), saved("part")
    assert whole["6.state"]["iter"] == 6 and len(whole) >= 2
    assert differences(whole, part) == []
    (best,) = whole["6.state"]["best_metric_results"].values()
    assert best["psnr"]["iter"] in (2, 4)  # the state of iteration 6 is older than its validation
