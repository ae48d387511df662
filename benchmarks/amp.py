"""Mixed precision of BasicSR's models: seconds a step, and PSNR after equal iterations, with `train.amp` and without.

`python benchmarks/amp.py FOLDER --iterations 16` makes LMDBs of FOLDER/train's images (tiles of 160x160, x4) and trains
each model twice by this project's pipeline, in turns, step by step: with amp and without, on the same batches. Then
both are validated on FOLDER/Set5. A table of medians of all steps but the first three, and of PSNR on Y.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from srflow_plugin.data.prepare import write_pairs
from srflow_plugin.devices import synchronize
from srflow_plugin.images.files import find_images
from srflow_plugin.progress import say
from srflow_plugin.training.cuda_names import of_this_machine
from srflow_plugin.training.pipelines import Training
from srflow_plugin.training.setup import load_run
from srflow_plugin.training.stop import StopRequest

WARM_UP = 3  # steps that are not measured
IMAGES = {"num_in_ch": 3, "num_out_ch": 3}
RRDB = {"type": "RRDBNet", **IMAGES, "num_feat": 32, "num_block": 2, "num_grow_ch": 16}
DEEP = {**IMAGES, "num_feat": 32, "upscale": 4, "res_scale": 1, "img_range": 255.0, "rgb_mean": [0.4488, 0.4371, 0.404]}
SWINIR = {
    **{
        "type": "SwinIR",
        "upscale": 4,
        "in_chans": 3,
        "img_size": 32,
        "window_size": 8,
        "img_range": 1.0,
        "mlp_ratio": 2,
    },
    **{"depths": [4, 4], "embed_dim": 32, "num_heads": [4, 4], "upsampler": "pixelshuffle", "resi_connection": "1conv"},
}
ADAM = {"type": "Adam", "lr": 2e-4, "betas": [0.9, 0.99]}
PIXEL = {"pixel_opt": {"type": "L1Loss"}}
GAN = {"type": "GANLoss", "gan_type": "vanilla", "real_label_val": 1.0, "fake_label_val": 0.0, "loss_weight": 5e-3}
MODELS: dict[str, dict[str, Any]] = {
    "SRModel, EDSR": {"network_g": {"type": "EDSR", "num_block": 8, **DEEP}},
    "SRModel, MSRResNet": {"network_g": {"type": "MSRResNet", **IMAGES, "num_feat": 32, "num_block": 8, "upscale": 4}},
    "SRModel, RRDBNet": {"network_g": RRDB},
    "SRModel, RCAN": {"network_g": {"type": "RCAN", "num_group": 2, "num_block": 4, "squeeze_factor": 4, **DEEP}},
    "SwinIRModel, SwinIR": {"network_g": SWINIR},
    "ESRGANModel, RRDBNet": {
        "network_g": RRDB,
        "network_d": {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 16, "skip_connection": True},
        "train": {"optim_d": ADAM, "gan_opt": GAN},
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds train/ and Set5/HR, Set5/LRx4")
    parser.add_argument("--iterations", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8, help="crops of 128x128 HR pixels in a batch")
    parser.add_argument("--amp", default="bfloat16", choices=["bfloat16", "float16"])
    parser.add_argument("--only", default="", help="models whose names hold this")
    args = parser.parse_args()
    folder = args.folder.resolve()
    say(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.iterations} iterations")
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        images = [image for part in sorted((folder / "train").iterdir()) for image in find_images(part)[::8]]
        write_pairs(images, Path("HR.lmdb"), Path("LR.lmdb"), 4, crop_size=160, num_workers=1)
        say(f"| model | s a step | with {args.amp} | times as fast | PSNR | with {args.amp} |")
        say(f"|{'---|' * 6}")
        for name in MODELS:
            if args.only in name:
                trainings = [make_training(name, kind, folder, args) for kind in ("none", args.amp)]
                (plain, low), psnr = compare(trainings, args.iterations)
                say(f"| {name} | {plain:.3f} | {low:.3f} | {plain / low:.2f} | {psnr[0]:.2f} | {psnr[1]:.2f} |")


def make_training(name: str, amp: str, folder: Path, args: argparse.Namespace) -> Training:
    """Make a model's training with one setting of amp."""
    model = MODELS[name]
    set5 = {f"dataroot_{key}": str(folder / "Set5" / part) for key, part in (("gt", "HR"), ("lq", "LRx4"))}
    of_train = {"dataroot_gt": "HR.lmdb", "dataroot_lq": "LR.lmdb", "io_backend": {"type": "lmdb"}, "gt_size": 128}
    pairs = {"type": "PairedImageDataset", "use_hflip": True, "use_rot": True, "num_worker_per_gpu": 0}
    schedule = {"scheduler": {"type": "MultiStepLR", "milestones": [], "gamma": 0.5}}
    opt = {
        **{"name": f"{name} {amp}", "model_type": name.partition(",")[0], "scale": 4, "num_gpu": "auto"},
        **{"manual_seed": 0, "network_g": model["network_g"], "network_d": model.get("network_d"), "path": {}},
        "datasets": {
            "train": {"name": "train", **pairs, **of_train, "batch_size_per_gpu": args.batch},
            "val": {"name": "Set5", "type": "PairedImageDataset", **set5, "io_backend": {"type": "disk"}},
        },
        "train": {
            **{"amp": amp, "total_iter": args.iterations, "optim_g": ADAM, **schedule, **PIXEL},
            **model.get("train", {}),
        },
        "val": {
            **{"val_freq": 10**9, "save_img": False},
            "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True}},
        },
        "logger": {"print_freq": 10**9, "save_checkpoint_freq": 10**9},
    }
    Path("it.yml").write_text(yaml.safe_dump(opt))
    run = load_run("it.yml", is_train=True)
    logging.getLogger("basicsr").setLevel(logging.ERROR)
    return Training(run, StopRequest())


def compare(trainings: list[Training], iterations: int) -> tuple[list[float], list[float]]:
    """Train all in turns: medians of their seconds a step, and their PSNR in the end."""
    taken: list[list[float]] = [[] for _ in trainings]
    with of_this_machine(trainings[0].opt):
        batches: list[Iterator[Any]] = [iter(training.batches()) for training in trainings]
        for _ in range(iterations):
            for training, left, seconds in zip(trainings, batches, taken, strict=True):
                batch = next(left)
                synchronize()
                start = time.perf_counter()
                training.step(batch)
                synchronize()
                seconds.append(time.perf_counter() - start)
        for training in trainings:
            training.validate()
    psnr = [training.model.best_metric_results["Set5"]["psnr"]["val"] for training in trainings]
    for training in trainings:
        training.close()
    return [statistics.median(seconds[WARM_UP:]) for seconds in taken], psnr


if __name__ == "__main__":
    main()
