"""What training and validation read: BasicSR's data sets, in an order that any process can find again.

The training data are one endless sequence of draws. Draw number n is the same crop of the same image, whichever process
reads it, with any number of processes and workers, before and after a resume.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import lmdb
import numpy as np
import torch
from basicsr.data.prefetch_dataloader import CUDAPrefetcher
from basicsr.utils import FileClient
from torch.utils.data import DataLoader, Dataset

from srflow_plugin.data.images import check_image, decode_image
from srflow_plugin.errors import UserError

Sample = dict[str, Any]


class BadImageError(UserError):
    """An image that cannot be used; its text names the file and says what to do."""

    def __init__(self, text: str) -> None:
        # A DataLoader raises a worker's exception again with the whole traceback in its text, ours in the last line.
        super().__init__(text.rpartition(f"{type(self).__name__}: ")[2].strip())


def seed_everything(*numbers: int) -> None:
    """Make all that is drawn from here on depend on these numbers alone, whatever was drawn before."""
    seeds = np.random.SeedSequence(numbers).generate_state(3).tolist()
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.manual_seed(seeds[2])


class CheckedImages(Dataset[Sample]):
    """A BasicSR data set that names the file where an image cannot be used; else the same samples.

    Every sample has a "note" beside: what is worth knowing about its files, or "".
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.opt: dict[str, Any] = dataset.opt
        self.files = CheckedFiles(getattr(dataset, "io_backend_opt", {"type": "disk"}))
        if getattr(dataset, "file_client", self) is None:  # BasicSR's data sets make theirs with the first image
            dataset.file_client = self.files
        paths = getattr(dataset, "paths", [])
        if all(isinstance(path, dict) for path in paths):  # as the folder lists them, which differs between machines
            paths.sort(key=lambda path: path.get("lq_path", ""))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        self.files.read.clear()
        self.files.notes.clear()
        try:
            sample = self.dataset[index]
            self._check_sizes(sample)
        except UserError as error:
            raise BadImageError(str(error)) from None
        except Exception as error:
            raise BadImageError(self._diagnosis(index, error)) from error
        return {**sample, "note": "; ".join(self.files.notes)}

    def _check_sizes(self, sample: Sample) -> None:
        if "gt" in sample and "lq" in sample and self.opt.get("scale"):
            gt, lq = sample["gt"].shape, sample["lq"].shape
            if (gt[-2], gt[-1]) != (self.opt["scale"] * lq[-2], self.opt["scale"] * lq[-1]):
                raise UserError(self._mismatch(gt[-2:], lq[-2:]) or "gt and lq of different sizes")

    def _diagnosis(self, index: int, error: Exception) -> str:
        """What is wrong with the files read last, as far as they tell."""
        try:
            sizes = [decode_image(data, name).shape[:2] for name, data in self.files.read.items()]
        except UserError as of_one:
            return str(of_one)
        if len(sizes) == 2:
            gt, lq = sizes
            scale = self.opt.get("scale", 1)
            if gt != (scale * lq[0], scale * lq[1]):
                return self._mismatch(gt, lq)
            if min(gt) < self.opt.get("gt_size", 0):
                name = next(iter(self.files.read))
                return f"{name} is {gt[0]}x{gt[1]}, smaller than gt_size {self.opt['gt_size']}; leave it out"
        names = ", ".join(self.files.read) or f"{self.opt['name']}, image {index}"
        return f"{names}: {error!r}"

    def _mismatch(self, gt: Sequence[int], lq: Sequence[int]) -> str:
        names = list(self.files.read)
        if len(names) != 2:
            return ""
        return (
            f"{names[0]} is {gt[0]}x{gt[1]} and {names[1]} {lq[0]}x{lq[1]}: not {self.opt['scale']} times; "
            "make the pair again with `srflow prepare`"
        )


class CheckedFiles:
    """BasicSR's FileClient that looks at what it hands out.

    Attributes:
        read: the encoded images handed out since it was cleared, by name.
        notes: what is worth knowing about them.
    """

    def __init__(self, backend: dict[str, Any]) -> None:
        self.backend = backend
        self.read: dict[str, bytes] = {}
        self.notes: list[str] = []

    def get(self, path: str, client_key: str = "default") -> bytes:
        name = str(path)
        if "db_paths" in self.backend:
            folders, keys = ([value] if isinstance(value, str) else value for value in self._lmdbs())
            name = f"{dict(zip(keys, folders, strict=True))[client_key]}: {path}"
        try:
            data = _client(os.getpid(), json.dumps(self.backend)).get(path, client_key)
        except (OSError, lmdb.Error) as error:
            raise UserError(f"{name} cannot be read: {error}") from None
        if data is None:
            raise UserError(f"{name} is in meta_info.txt and not in the LMDB; make it again with `srflow prepare`")
        note = check_image(data, name)
        if note:
            self.notes.append(note)
        self.read[name] = data
        return data

    def _lmdbs(self) -> tuple[Any, Any]:
        return self.backend["db_paths"], self.backend.get("client_keys", "default")


def close_files() -> None:
    """Close what this process has open; who needs it opens it again."""
    _client.cache_clear()


@cache
def _client(process: int, backend: str) -> FileClient:
    """One for each process, since LMDB environments are neither opened twice in one nor shared by two."""
    arguments: dict[str, Any] = json.loads(backend)
    return FileClient(arguments.pop("type"), **arguments)


class Draws(Dataset[Sample]):
    """Draw number n of the endless sequence of training samples: all images in a random order, then again in another.

    Args:
        images: where samples come from; their cropping and flipping is drawn from ``seed`` and n.
        seed: of the sequence.
        skip_bad: take the next image in place of one that cannot be used, and say so in the sample's "note".
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
            seed_everything(self.seed, draw)
            try:
                sample = self.images[int(self._order[1][(place + step) % len(self.images)])]
            except BadImageError as error:
                if not self.skip_bad:
                    raise
                skipped.append(f"skipped: {error}")
            else:
                return {**sample, "note": "; ".join(filter(None, [*skipped, sample["note"]]))}
        raise BadImageError(f"{self.images.opt['name']}: no image can be used; {skipped[0]}")


def training_batches(draws: Draws, opt: dict[str, Any], first: int, iterations: int) -> Iterator[Sample]:
    """This rank's batches of so many iterations, from draw number ``first`` on. The ranks take turns, draw by draw."""
    dataset_opt = opt["datasets"]["train"]
    batch_size, num_workers = dataset_opt["batch_size_per_gpu"], dataset_opt["num_worker_per_gpu"]
    if not opt["dist"]:  # as BasicSR: one process may work for several GPUs
        batch_size, num_workers = (size * max(1, opt["num_gpu"]) for size in (batch_size, num_workers))
    count = batch_size * opt["world_size"] * iterations
    arguments: dict[str, Any] = {
        "batch_size": batch_size,
        "sampler": range(first + opt["rank"], first + count, opt["world_size"]),
        "num_workers": num_workers,
        "pin_memory": dataset_opt.get("pin_memory", False),
    }
    close_files()  # or the workers, forked from this process, could not open them
    loader = DataLoader(draws, **arguments)
    if dataset_opt.get("prefetch_mode") == "cuda":
        return iter(CUDAPrefetcher(loader, opt).next, None)
    # "cpu" is what the loader's workers do anyway; BasicSR's thread for it waits forever where an image cannot be read.
    return iter(loader)


def global_batch_size(opt: dict[str, Any]) -> int:
    """Images in an iteration, of all ranks."""
    processes = opt["world_size"] if opt["dist"] else max(1, opt["num_gpu"])
    return int(opt["datasets"]["train"]["batch_size_per_gpu"] * processes)
