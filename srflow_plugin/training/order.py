"""The training data as one endless sequence of draws, which any process can find again.

Draw number n is the same crop of the same image, whichever process reads it, with any number of processes and workers,
before and after a resume.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
from basicsr.data.prefetch_dataloader import CUDAPrefetcher
from torch.utils.data import DataLoader, Dataset

from srflow_plugin.data.checked import BadImageError, CheckedImages, Sample, close_files
from srflow_plugin.options.schema import ImageData, read
from srflow_plugin.training.seeds import seed_cpu
from srflow_plugin.training.stop import leave_signals_to_parent


class Draws(Dataset[Sample]):
    """Endless sequence of training samples: all images in a random order, then again in another.

    Item n is draw number n, its number beside it as "draw".

    Args:
        images: where samples come from; their cropping and flipping is drawn from ``seed`` and n.
        seed: of the sequence.
        skip_bad: take the next image in place of one that cannot be used, and say so in a line of the sample's "note".
    """

    def __init__(self, images: CheckedImages, seed: int, skip_bad: bool = False) -> None:
        self.images = images
        self.seed = seed
        self.skip_bad = skip_bad
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))

    def __getitem__(self, draw: int) -> Sample:
        number, place = divmod(draw, len(self.images))
        if self._order[0] != number:
            self._order = number, np.random.default_rng((self.seed, number)).permutation(len(self.images))
        skipped = []
        for step in range(len(self.images)):
            seed_cpu(self.seed, draw)
            try:
                sample = self.images[int(self._order[1][(place + step) % len(self.images)])]
            except BadImageError as error:
                if not self.skip_bad:
                    raise
                skipped.append(f"skipped: {error}")
            else:
                return {**sample, "note": "\n".join(filter(None, [*skipped, sample["note"]])), "draw": draw}
        raise BadImageError(f"{self.images.opt['name']}: no image can be used; {skipped[0]}")


def training_batches(draws: Draws, opt: dict[str, Any], first: int, iterations: int) -> Generator[Sample, None, None]:
    """Read this rank's batches of so many iterations, from draw number ``first`` on. To be closed if not all are read.

    The ranks take turns, draw by draw.
    """
    data = read(ImageData, opt["datasets"]["train"])
    # Without a launcher one process may work for several GPUs, as in BasicSR.
    gpus = 1 if opt["dist"] else max(1, opt["num_gpu"])
    count = data.batch_size_per_gpu * gpus * opt["world_size"] * iterations
    close_files()  # or the workers, forked from this process, could not open them
    loader = DataLoader(
        draws,
        batch_size=data.batch_size_per_gpu * gpus,
        sampler=range(first + opt["rank"], first + count, opt["world_size"]),
        num_workers=data.num_worker_per_gpu * gpus,
        pin_memory=data.pin_memory,
        worker_init_fn=leave_signals_to_parent,
    )
    batches = iter(loader)
    try:
        if data.prefetch_mode == "cuda":
            yield from iter(CUDAPrefetcher(batches, opt).next, None)
        else:  # "cpu" is what workers do anyway; BasicSR's thread for it waits forever for an image that is not read
            yield from batches
    finally:
        # Workers leave signals to their parent, which would wait for them at its end. A traceback keeps the iterator.
        if data.num_worker_per_gpu:
            batches._shutdown_workers()  # type: ignore[attr-defined]


def global_batch_size(opt: dict[str, Any]) -> int:
    """Count the images of an iteration, of all ranks."""
    processes = opt["world_size"] if opt["dist"] else max(1, opt["num_gpu"])
    return int(opt["datasets"]["train"]["batch_size_per_gpu"] * processes)
