"""Every metric of every image, from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from srflow_plugin.benchmark.draw import BenchmarkSet, Method, Pair, Settings, image_scale, sample_files
from srflow_plugin.benchmark.records import Records, Values
from srflow_plugin.data.images import read_image
from srflow_plugin.errors import UserError
from srflow_plugin.metrics.samples import is_of_samples, measure


def metric_sections(scale: int, settings: Settings) -> dict[str, dict[str, Any]]:
    """The columns, as sections of an option file's ``val.metrics``."""
    psnr, ssim = {"type": "calculate_psnr", "crop_border": 0}, {"type": "calculate_ssim", "crop_border": 0}
    on_y = {"crop_border": scale, "test_y_channel": True}
    distance = {"net": settings.net, "better": "lower"}
    return {
        "psnr": psnr,
        "ssim": ssim,
        "psnr_y": {**psnr, **on_y},
        "ssim_y": {**ssim, **on_y},
        "distance": {"type": f"calculate_{settings.distance}", **distance},
        "lr_psnr": {"type": "calculate_lr_psnr", "scale": scale, "lr_border": settings.lr_border},
        "psnr_best": {**psnr, "over": "best"},
        "psnr_mean_image": {**psnr, "over": "mean_image"},
        "diversity": {"type": "calculate_diversity", "distance": settings.distance, "net": settings.net},
        "pixel_std": {"type": "calculate_pixel_std"},
    }


def score_all(
    folder: Path, sets: Sequence[BenchmarkSet], methods: Sequence[Method], settings: Settings, records: Records
) -> None:
    """Score the outputs that are not scored yet."""
    work = [(dataset, method, pair) for dataset in sets for method in methods for pair in dataset.pairs]
    for dataset, method, pair in tqdm(work, unit="image", desc="scores"):
        if not records.has(dataset.name, method.name, pair.hr.name):
            files = sample_files(folder, dataset, method, pair)
            records.add(dataset.name, method.name, pair.hr.name, score(files, pair, settings))


def score(files: Sequence[Path], pair: Pair, settings: Settings) -> Values:
    """All metrics of an image's samples; those of several samples only where there are several."""
    gt, lq, *samples = (read_image(path) for path in (pair.hr, pair.lr, *files))
    scale = image_scale(pair, gt, lq)
    for file, sample in zip(files, samples, strict=True):
        if sample.shape != gt.shape:
            sizes = f"{sample.shape[0]}x{sample.shape[1]}, its ground truth {gt.shape[0]}x{gt.shape[1]}"
            raise UserError(f"{file} is {sizes}: they must be the same size")
    return {
        name: measure(samples, gt, lq, section)
        for name, section in metric_sections(scale, settings).items()
        if len(samples) > 1 or not (is_of_samples(section) or "over" in section)
    }
