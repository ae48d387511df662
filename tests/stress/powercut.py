"""Power cuts at every step of what writes files: `python -m tests.stress.powercut`.

Records what a piece of work does to its folder: contents, names, and what it puts on the disk for certain (fsync). For
a cut after each step it then makes every state that a disk may be left in: of contents that were not synced nothing, a
half, zeros or all, of changes of names that were not synced any part. In each state what was there before, or what was
made, must be whole; and a checkpoint that was finished is not lost. The same with syncs left out shows that the
simulation finds what is to be found. Prints steps, different states and faults of each piece of work; exit code 1 if
there are any with the syncs, or none without.

Databases of LMDB put their contents on the disk themselves, which is believed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from safetensors import SafetensorError
from tqdm import tqdm

from srflow_plugin.applications.latents import read_latents, save_latents
from srflow_plugin.checkpoints.convert import convert
from srflow_plugin.checkpoints.load import load_network, read_checkpoint
from srflow_plugin.data.archives import unpack
from srflow_plugin.data.pairs import Pair, open_writer
from srflow_plugin.files import save_atomically, write_whole
from srflow_plugin.images.files import read_image, write_image
from srflow_plugin.training.resume import find_newest
from srflow_plugin.training.state import Checkpoints, Progress, WholeNetworks
from tests.helpers import image_pair, make_archive, noise_png, perturb, small_network

MOST_STATES = 64  # of one cut; of more, some at random
ENOUGH = 20  # faults, where syncs are left out
BY_THEMSELVES = ("data.mdb", "lock.mdb")
Folder = dict[str, int]  # number of each file or folder by its name
Tree = bytes | tuple[Any, ...]
Change = tuple[int, str, int | None]  # in a folder a name has a new meaning, or none


class Work(NamedTuple):
    """Piece of work.

    Attributes:
        prepare: makes what is there before, in a folder.
        run: does it, and may say what is finished.
        check: raises if a state is not as it should be, given what had been finished at the cut.
    """

    prepare: Callable[[Path], object]
    run: Callable[[Path, Callable[[Any], None]], object]
    check: Callable[[Path, Any], object]


class Disk:
    """Names and contents in a folder: those of now, and those that a power cut leaves."""

    def __init__(self, root: Path, with_sync: bool) -> None:
        self.root, self.with_sync = root, with_sync
        self.numbers: dict[int, int] = {}  # by inode, which systems give again
        self.next = itertools.count()
        self.contents: dict[int, bytes] = {}
        self.names: dict[int, Folder] = {}
        self.pending: list[list[Change]] = []
        self.look()
        self.safe_contents, self.safe_names = dict(self.contents), {key: dict(own) for key, own in self.names.items()}
        self.pending.clear()

    def look(self) -> None:
        """Take up what is new since the last look."""
        names, contents = self.names, self.contents
        self.names, self.contents = {}, {}
        self.top = self._look_at(self.root)
        changes = [
            (folder, name, own.get(name))
            for folder, own in self.names.items()
            for name in own.keys() | names.get(folder, {}).keys()
            if own.get(name) != names.get(folder, {}).get(name)
        ]
        if changes:
            self.pending.append(changes)
        self.contents = {**contents, **self.contents}
        there = {number for own in self.names.values() for number in own.values()} | {self.top}
        self.numbers = {inode: number for inode, number in self.numbers.items() if number in there}

    def _look_at(self, path: Path) -> int:
        status = path.lstat()
        number = self.numbers.setdefault(status.st_ino, -1)
        if number < 0:
            number = self.numbers[status.st_ino] = next(self.next)
        if stat.S_ISDIR(status.st_mode):
            self.names[number] = {entry.name: self._look_at(entry) for entry in sorted(path.iterdir())}
        else:
            self.contents[number] = path.read_bytes()
            if path.name in BY_THEMSELVES and hasattr(self, "safe_contents"):
                self.safe_contents[number] = self.contents[number]
        return number

    def sync(self, inode: int) -> None:
        """Put a file's contents, or the names in a folder, on the disk."""
        self.look()
        number = self.numbers.get(inode)
        if number is None or not self.with_sync:
            return
        if number in self.names:
            for changes in self.pending:
                self._apply([change for change in changes if change[0] == number], self.safe_names)
            left = ([change for change in changes if change[0] != number] for changes in self.pending)
            self.pending = [changes for changes in left if changes]
        else:
            self.safe_contents[number] = self.contents[number]

    def after_a_cut(self, rng: random.Random) -> Iterator[Tree]:
        """Make what a cut now may leave."""
        loose = [number for number, content in self.contents.items() if self.safe_contents.get(number) != content]
        options = [self._left_of(number) for number in loose]
        choices = [range(2)] * len(self.pending) + [range(len(option)) for option in options]
        if math.prod(map(len, choices)) <= MOST_STATES:
            chosen = [*itertools.product(*choices)]
        else:  # the names' changes up to one, and any
            orders = ([number < count for number in range(len(self.pending))] for count in range(len(self.pending) + 1))
            chosen = [(*order, *map(rng.choice, choices[len(self.pending) :])) for order in orders]
            chosen = rng.sample(chosen, min(len(chosen), MOST_STATES // 2))
            chosen += [tuple(map(rng.choice, choices)) for _ in range(MOST_STATES // 2)]
        for choice in chosen:
            names = {key: dict(own) for key, own in self.safe_names.items()}
            for changes in itertools.compress(self.pending, choice):
                self._apply(changes, names)
            left = (option[part] for option, part in zip(options, choice[len(self.pending) :], strict=True))
            yield self._tree(self.top, names, {**self.safe_contents, **dict(zip(loose, left, strict=True))})

    def _left_of(self, number: int) -> list[bytes]:
        now = self.contents[number]
        return [*{self.safe_contents.get(number, b""), now[: len(now) // 2], bytes(len(now)), now}]

    def _apply(self, changes: list[Change], names: dict[int, Folder]) -> None:
        for folder, name, number in changes:
            own = names.setdefault(folder, {})
            own.pop(name, None)
            if number is not None:
                own[name] = number

    def _tree(self, number: int, names: dict[int, Folder], contents: dict[int, bytes]) -> Tree:
        if number not in self.names and number not in names:
            return contents.get(number, b"")
        inner = names.get(number, {})
        return tuple((name, self._tree(inner[name], names, contents)) for name in sorted(inner))


def write(tree: Tree, path: Path) -> None:
    """Make a file or a folder."""
    if isinstance(tree, bytes):
        path.write_bytes(tree)
        return
    path.mkdir()
    for name, inner in tree:
        write(inner, path / name)


@contextmanager
def recorded(disk: Disk, step: Callable[[], None]) -> Iterator[None]:
    """Have a disk look at all that the block does, and call ``step`` after each."""
    real: list[tuple[Any, str, Any]] = [
        (owner, name, getattr(owner, name))
        for owner, names in ((os, ("fsync", "sync", "link")), (Path, ("replace", "rename", "unlink", "mkdir")))
        for name in names
    ]

    def recording(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            disk.look()
            step()
            result = function(*arguments, **options)
            if name == "fsync":
                disk.sync(os.fstat(arguments[0]).st_ino)
            elif name == "sync":
                for inode in [*disk.numbers]:
                    disk.sync(inode)
            disk.look()
            step()
            return result

        return call

    for owner, name, function in real:
        setattr(owner, name, recording(name, function))
    try:
        yield
    finally:
        for owner, name, function in real:
            setattr(owner, name, function)


def simulated(work: Work, with_sync: bool, seed: int = 0) -> tuple[int, int, list[str]]:
    """Do a piece of work, with a power cut after each step: the numbers of steps and states, and the faults."""
    with tempfile.TemporaryDirectory() as parent:
        folder, rng = Path(parent) / "work", random.Random(seed)
        finished: list[Any] = []
        cuts: set[tuple[Tree, tuple[Any, ...]]] = set()  # with what was finished by then
        folder.mkdir()
        work.prepare(folder)
        disk = Disk(folder, with_sync)

        def step() -> None:
            cuts.update((tree, tuple(finished)) for tree in disk.after_a_cut(rng))
            steps.append(1)

        steps: list[int] = []
        with recorded(disk, step), redirect_stderr(StringIO()):
            work.run(folder, finished.append)
        step()
        faults = []
        for number, (tree, done) in enumerate(cuts):
            left = Path(parent) / f"state_{number}"
            write(tree, left)
            try:
                with redirect_stderr(StringIO()):  # bars of what it does
                    work.check(left, [*done])
            except (AssertionError, OSError, ValueError, SafetensorError, cv2.error) as error:
                faults.append(f"{type(error).__name__}: {error}".splitlines()[0])
            if not with_sync and len(faults) == ENOUGH:
                break
    return len(steps), len(cuts), faults


# -- pieces of work ----------------------------------------------------------------------------------------------------

WEIGHTS = [{"a": torch.full((300,), float(value))} for value in range(3)]


def one_of(values: list[Any], value: Any) -> None:
    assert any(torch.equal(value["a"], other["a"]) for other in values), "neither the old nor the new"


class Model(WholeNetworks):
    """A model of one small network, as far as checkpoints look at it."""

    def __init__(self, folder: Path) -> None:
        path = {"models": str(folder / "models"), "training_states": str(folder / "training_states")}
        self.opt = {"rank": 0, "path": path, "network_g": {}, "train": {"total_iter": 9}}
        self.net_g = torch.nn.Linear(9, 9)
        self.get_bare_model = lambda net: net
        self.optimizers: list[Any] = []
        self.schedulers: list[Any] = []
        self.device = torch.device("cpu")

    def save(self, epoch: int, label: int | str) -> None:
        self.save_network(self.net_g, "net_g", label)


def make_folders(folder: Path) -> None:
    for name in ("models", "training_states"):
        (folder / name).mkdir()


def train(folder: Path, finish: Callable[[Any], None]) -> None:
    model: Any = Model(folder)
    checkpoints = Checkpoints(model, keep_last=1, keep_best=None)
    for iteration in range(1, 4):
        checkpoints.save(0, Progress(iteration, iteration, 0), must=True)
        finish(iteration)
        checkpoints.save_networks("best")


def check_training(folder: Path, finished: list[int]) -> None:
    newest, _ = find_newest(Model(folder).opt)
    assert not finished or (newest is not None and int(newest.stem) >= finished[-1]), "a checkpoint is lost"
    if (folder / "models" / "net_g_best.pth").exists():
        read_checkpoint(folder / "models" / "net_g_best.pth")


def make_networks(folder: Path) -> None:
    for seed, name in enumerate(("old.pth", "source.pth")):
        network = perturb(small_network(num_block=1, feature_blocks=(0,), num_steps=1), seed)
        save_atomically({"params": network.state_dict()}, folder / name)
    for suffix in (".pth", ".safetensors"):
        convert(folder / "old.pth", folder / f"net{suffix}")


def convert_both(folder: Path, finish: Callable[[Any], None]) -> None:
    for suffix in (".pth", ".safetensors"):
        convert(folder / "source.pth", folder / f"net{suffix}", overwrite=True)
        convert(folder / "source.pth", folder / f"new{suffix}")
        finish(suffix)


def check_networks(folder: Path, finished: list[str]) -> None:
    for suffix in (".pth", ".safetensors"):
        for name in ("net", "new"):
            path = folder / f"{name}{suffix}"
            if name == "net" or suffix in finished or path.exists():
                _load(path.read_bytes())


@cache
def _load(content: bytes) -> None:
    """Load a network once, of the many states that have it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net"
        path.write_bytes(content)
        load_network(path)


def encode(folder: Path, finish: Callable[[Any], None]) -> None:
    _, lq = image_pair(4, 4, 4)
    for value in range(2):
        save_latents(folder / "latents", [torch.full((2, 3, 8, 8), float(value))], lq)
        finish(value)


def check_latents(folder: Path, finished: list[int]) -> None:
    if finished or (folder / "latents").exists():
        read_latents(folder / "latents")


PICTURE = np.arange(3 * 16 * 16, dtype=np.uint8).reshape(16, 16, 3)


def check_text(folder: Path, finished: list[int]) -> None:
    assert json.loads((folder / "protocol.json").read_text())["a"] >= len(finished)


def write_texts(folder: Path, finish: Callable[[Any], None]) -> None:
    for number in range(1, 3):
        write_whole(folder / "protocol.json", json.dumps({"a": number}))
        finish(number)


def write_pictures(folder: Path, finish: Callable[[Any], None]) -> None:
    for _ in range(2):
        write_image(folder / "a.png", PICTURE)
        finish("a.png")


def check_picture(folder: Path, finished: list[str]) -> None:
    if finished or (folder / "a.png").exists():
        assert np.array_equal(read_image(folder / "a.png"), PICTURE)


def prepare_pairs(kind: str) -> Work:
    images = {"a": [1, 1], "b": [2, 2]}

    def run(folder: Path, finish: Callable[[Any], None]) -> None:
        writer = open_writer(folder / f"HR{kind}", folder / f"LR{kind}", {"scale": 4}, images)
        for number, key in enumerate(images):
            writer.put(key, [Pair(noise_png(number), noise_png(number))])
        writer.finish()
        finish("all")

    def check(folder: Path, finished: list[str]) -> None:
        writer = open_writer(folder / f"HR{kind}", folder / f"LR{kind}", {"scale": 4}, images)
        assert writer.complete or not finished, "what was complete is not"
        for path in folder.glob(f"*{kind}/*.png"):
            assert path.read_bytes() in (noise_png(0), noise_png(1)), f"{path.name} is not whole"
        if not writer.complete:
            for number, key in enumerate(images):
                if not writer.has(key):
                    writer.put(key, [Pair(noise_png(number), noise_png(number))])
            writer.finish()
        assert writer.count() == len(images), "images are missing"
        for path in folder.glob("*.lmdb"):
            assert len((path / "meta_info.txt").read_text().splitlines()) == len(images)
        writer.close()

    return Work(lambda folder: None, run, check)


def unpack_archive(folder: Path, finish: Callable[[Any], None]) -> None:
    finish(unpack(folder / "set.zip", "in", folder / "set"))


def check_unpacked(folder: Path, finished: list[Path]) -> None:
    assert not finished or (folder / "set").is_dir()
    unpack(folder / "set.zip", "in", folder / "set")
    for number in range(3):
        assert (folder / "set" / f"{number}.png").read_bytes() == noise_png(number), "an image is not whole"


WORKS: dict[str, Work] = {
    "a file replaced": Work(
        lambda folder: save_atomically(WEIGHTS[0], folder / "a.pth"),
        lambda folder, finish: save_atomically(WEIGHTS[1], folder / "a.pth"),
        lambda folder, finished: one_of(WEIGHTS[:2], read_checkpoint(folder / "a.pth")),
    ),
    "checkpoints, keep_last 1": Work(make_folders, train, check_training),
    "convert": Work(make_networks, convert_both, check_networks),
    "latents": Work(lambda folder: None, encode, check_latents),
    "texts": Work(lambda folder: write_whole(folder / "protocol.json", '{"a": 0}'), write_texts, check_text),
    "pictures": Work(lambda folder: None, write_pictures, check_picture),
    "prepare, LMDBs": prepare_pairs(".lmdb"),
    "prepare, folders": prepare_pairs(""),
    "unpack": Work(
        lambda folder: make_archive(folder / "set.zip", {f"in/{number}.png": noise_png(number) for number in range(3)}),
        unpack_archive,
        check_unpacked,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the states that are looked at where there are many")
    args = parser.parse_args()
    rows, total, bad = [], 0, False
    for name, work in tqdm(WORKS.items(), unit="work"):
        steps, states, faults = simulated(work, with_sync=True, seed=args.seed)
        _, _, unsynced = simulated(work, with_sync=False, seed=args.seed)
        many = f"{len(unsynced)}{'+' if len(unsynced) == ENOUGH else ''}"
        rows.append(f"{name:26}{steps:7}{states:9}{len(faults):9}{many:>16}")
        total += states
        bad |= bool(faults) or not unsynced
        for fault in sorted({*faults})[:5]:
            tqdm.write(f"{name}: {fault}", file=sys.stderr)
    sys.stdout.write(f"{'':26}{'steps':>7}{'states':>9}{'faults':>9}{'without syncs':>16}\n" + "\n".join(rows))
    sys.stdout.write(f"\n{total} states\n")
    sys.exit(bad)


if __name__ == "__main__":
    main()
