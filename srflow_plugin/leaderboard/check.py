"""All images of a benchmark, read once before any is drawn: what cannot be used is named now, not after hours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from srflow_plugin.errors import UserError
from srflow_plugin.images.files import read_image
from srflow_plugin.leaderboard.draw import Method, Settings
from srflow_plugin.leaderboard.outputs import find_outputs
from srflow_plugin.leaderboard.sets import BenchmarkSet, Pair, Pictures, read_pair
from srflow_plugin.progress import tell, with_progress
from srflow_plugin.shares import this_process

NIQE_BLOCK = 96
MANY = 20  # images from which on a bar shows how far it is


def with_files(method: Method, sets: Sequence[BenchmarkSet]) -> Method:
    """Find the files of a method that another program has run, for all data sets."""
    if method.draws or method.source is None:
        return method
    files = {dataset.name: find_outputs(method.source, dataset) for dataset in sets}
    return method._replace(files=files, num_samples=max(len(of_images[0]) for of_images in files.values()))


def checked_set(
    dataset: BenchmarkSet, methods: Sequence[Method], settings: Settings, is_scored: Callable[[str, str, str], bool]
) -> BenchmarkSet:
    """Read all pairs of a data set, and other methods' files for it, but for those scored already.

    Returns:
        The data set with its scale.

    Raises:
        UserError: the first file that cannot be used, or pairs of several scales.
    """
    is_first, cropped, scale = this_process().rank == 0, 0, 0
    pairs = dataset.pairs
    for pair in with_progress(pairs, "image checked", disable=not is_first or len(pairs) < MANY):
        pictures = read_pair(pair)
        scale = scale or pictures.scale
        if pictures.scale != scale:
            raise UserError(
                f"{dataset.name}: {pair.lr} is of scale {pictures.scale}, {pairs[0].lr} of scale {scale}; "
                "one data set has one scale"
            )
        cropped += pictures.gt.shape[:2] != pictures.hr_size
        if settings.niqe:
            _check_niqe(pair, pictures)
        for method in methods:
            if method.files and not is_scored(dataset.name, method.name, pair.hr.name):
                for file in method.files[dataset.name][pair.number]:
                    read_output(file, pictures)
    if cropped and is_first:
        tell(f"{dataset.name}: {cropped} of {len(pairs)} HR images are cropped to a multiple of {scale}")
    return dataset._replace(scale=scale)


def read_output(file: Path, pictures: Pictures) -> np.ndarray:
    """Read a sample of any method, uint8 RGB, cropped as the HR image is.

    Raises:
        UserError: it cannot be used, or is of another size.
    """
    sample, gt = read_image(file), pictures.gt
    if sample.shape[:2] not in (gt.shape[:2], pictures.hr_size):
        sizes = f"{sample.shape[1]}x{sample.shape[0]}, its ground truth {gt.shape[1]}x{gt.shape[0]}"
        raise UserError(f"{file} is {sizes}: they must be the same size")
    return np.ascontiguousarray(sample[: gt.shape[0], : gt.shape[1]])


def _check_niqe(pair: Pair, pictures: Pictures) -> None:
    rows, columns = ((size - 2 * pictures.scale) // NIQE_BLOCK for size in pictures.gt.shape[:2])
    if rows * columns < 2:
        raise UserError(f"{pair.hr} is too small for NIQE, which needs two blocks of 96x96; leave out --niqe")
