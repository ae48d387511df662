"""Every metric of every image, from files, by threads of one process: networks are loaded once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from tqdm import tqdm

from srflow_plugin.data.parallel import in_hand, in_threads
from srflow_plugin.leaderboard.calibration import pooled
from srflow_plugin.leaderboard.check import read_output
from srflow_plugin.leaderboard.draw import Method, Settings, sample_files
from srflow_plugin.leaderboard.records import Records, Values
from srflow_plugin.leaderboard.sets import BenchmarkSet, Pair, read_pair
from srflow_plugin.metrics.calibration import spread_and_error
from srflow_plugin.metrics.perceptual import forget_references
from srflow_plugin.metrics.samples import Samples, is_of_samples
from srflow_plugin.shares import rounds, this_process

LEVELS = (50, 80, 95)  # of central intervals, in percent


def metric_sections(scale: int, settings: Settings) -> dict[str, dict[str, Any]]:
    """Make the columns, as sections of an option file's ``val.metrics``."""
    ssim_type = "calculate_ssim_pt" if settings.device.startswith("cuda") else "calculate_ssim"
    psnr, ssim = {"type": "calculate_psnr", "crop_border": 0}, {"type": ssim_type, "crop_border": 0}
    on_y = {"crop_border": scale, "test_y_channel": True}
    return {
        "psnr": psnr,
        "ssim": ssim,
        "psnr_y": {**psnr, **on_y},
        "ssim_y": {**ssim, **on_y},
        "distance": {"type": f"calculate_{settings.distance}", "net": settings.net},
        "lr_psnr": {"type": "calculate_lr_psnr", "scale": scale, "lr_border": settings.lr_border},
        "psnr_best": {**psnr, "over": "best"},
        "psnr_mean_image": {**psnr, "over": "mean_image"},
        "diversity": {"type": "calculate_diversity", "distance": settings.distance, "net": settings.net},
        "pixel_std": {"type": "calculate_pixel_std"},
        "crps": {"type": "calculate_crps"},
        "energy_score": {"type": "calculate_energy_score"},
        **{f"coverage_{level}": {"type": "calculate_coverage", "level": level} for level in LEVELS},
        **({"niqe": {"type": "calculate_niqe", "crop_border": scale}} if settings.niqe else {}),
    }


class Work(NamedTuple):
    """One image of a method that is not scored yet."""

    dataset: str
    method: str
    pair: Pair
    files: list[Path]


def score_all(
    folder: Path,
    sets: Sequence[BenchmarkSet],
    methods: Sequence[Method],
    settings: Settings,
    records: Records,
    workers: int,
) -> None:
    """Score the outputs that are not scored yet, shared with all processes that do the same."""
    work = [
        Work(dataset.name, method.name, pair, sample_files(folder, dataset, method, pair))
        for dataset in sets
        for pair in dataset.pairs
        for method in methods  # of one pair after each other: they share what the ground truth's features take
    ]

    def is_scored(one: Work) -> bool:
        return records.has(one.dataset, one.method, one.pair.hr.name)

    todo = len(work) - sum(map(is_scored, work))
    workers = max(1, min(workers, todo))
    all_rounds = rounds(work, lambda one: f"score {one[:3]}", is_scored, folder, in_hand(workers))
    bar = tqdm(total=len(work), initial=len(work) - todo, unit="image", desc="scores", disable=this_process().rank > 0)
    with _cores_shared(workers), closing(all_rounds), bar:
        for items in all_rounds:
            with closing(in_threads(partial(_score, settings=settings), items, workers)) as scored:
                for one, values in scored:
                    records.add(one.dataset, one.method, one.pair.hr.name, values)
                    bar.update()
        bar.update(len(work) - bar.n)  # those that others have scored


@contextmanager
def _cores_shared(workers: int) -> Iterator[None]:
    """Threads started in the block calculate with their share of the cores, each, so that none waits for another."""
    torch_threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(max(1, torch_threads // workers))
    cv2.setNumThreads(max(1, cv2_threads // workers))
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        cv2.setNumThreads(cv2_threads)
        forget_references()


def _score(work: Work, settings: Settings) -> tuple[Work, Values]:
    start = time.perf_counter()
    values = score(work.files, work.pair, settings)
    return work, {**values, "score_seconds": time.perf_counter() - start}


def score(files: Sequence[Path], pair: Pair, settings: Settings) -> Values:
    """Compute all metrics of an image's samples; those of several samples only where there are several."""
    pictures = read_pair(pair)
    scale = pictures.scale
    gt, lq, *samples = (
        np.ascontiguousarray(image[..., ::-1])  # BGR, which BasicSR's metrics take
        for image in chain([pictures.gt, pictures.lq], (read_output(file, pictures) for file in files))
    )
    measured = Samples(samples, gt, lq)
    values: Values = {
        name: measured.measure(section)
        for name, section in metric_sections(scale, settings).items()
        if len(samples) > 1 or not (is_of_samples(section) or "over" in section)
    }
    if len(samples) > 1:
        values.update(pooled([{"spread": spread_and_error(samples, gt)}]))
    return values
