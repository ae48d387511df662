"""Fixtures of several test files."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from skimage.data import chelsea

from srflow_plugin import bicubic_downscale, devices
from srflow_plugin.applications import upscale
from srflow_plugin.data import download
from srflow_plugin.images.files import find_images, read_image, write_image
from srflow_plugin.metrics import published
from srflow_plugin.metrics.perceptual import perceptual_distance
from srflow_plugin.options.schema import Section
from srflow_plugin.training.setup import load_run
from tests.helpers import SHARED, TINY, Enlarger, Server, make_data, untrained_network

# A shell's background ignores it, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# They are Unix' own: limits of processes, signals, Slurm.
collect_ignore_glob = ["stress/*"] if os.name == "nt" else []


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """A thread for each process, here and in those that tests start: with networks so small two would only wait."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session", autouse=True)
def on_the_cpu() -> Iterator[None]:
    """The CPU, whatever this machine has: what tests expect to the bit was computed there."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(devices, "accelerators", list)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of benchmark images, which is not part of the project."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} with the benchmark images is not on this machine")
    return folder


@pytest.fixture
def fresh_log() -> Iterator[None]:
    """BasicSR's logger, which it sets up once in a process: here once in a test, to write where the test looks."""
    _forget_log()
    yield
    _forget_log()


def _forget_log() -> None:
    from basicsr.utils.logger import initialized_logger

    logger = logging.getLogger("basicsr")
    for handler in [*logger.handlers]:
        logger.removeHandler(handler)
        handler.close()
    initialized_logger.clear()


@pytest.fixture(scope="session")
def made_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny.yml and its data sets."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copy(TINY, folder)
    make_data(folder, width=52, height=44)
    return folder


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_data: Path, fresh_log: None) -> Path:
    """An empty working folder, entered, with tiny.yml and its data sets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # slow; no test here cuts the power
    shutil.copytree(made_data, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def tiny_options(workplace: Path) -> Section:
    """What ``basicsr train -opt tiny.yml`` hands to the model."""
    return load_run("tiny.yml", is_train=True).opt


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder, entered, with two photographs and what stands for a network."""
    monkeypatch.chdir(tmp_path)
    image = np.ascontiguousarray(chelsea()[100:112, 100:115])
    Path("in").mkdir()
    for name in ("a.png", "b.jpg"):
        Image.fromarray(image).save(f"in/{name}")
    Path("net.pth").write_bytes(b"stands for a network")
    monkeypatch.setattr(upscale, "load_network", lambda path, **settings: Enlarger())
    upscale._loaded.cache_clear()
    yield tmp_path
    upscale._loaded.cache_clear()


@pytest.fixture(scope="session")
def photograph() -> np.ndarray:
    """A photograph (H, W, 3), uint8 BGR, a multiple of 8."""
    return np.ascontiguousarray(chelsea()[:192, 40:240, ::-1])


@pytest.fixture
def random_alexnet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """AlexNet without its downloaded weights, the same wherever it is built."""

    def build(*args: Any, **kwargs: Any) -> torch.nn.Module:
        torch.manual_seed(0)
        network: torch.nn.Module = alexnet(weights=None)
        return network

    alexnet = torchvision.models.alexnet
    monkeypatch.setattr(torchvision.models, "alexnet", build)
    monkeypatch.setattr(published, "trunk_weights", lambda net: build().state_dict())
    perceptual_distance.cache_clear()
    yield
    perceptual_distance.cache_clear()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server on this machine, which may behave badly."""
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def benchmark_command(workplace: Path) -> list[str]:
    """An ``srflow benchmark`` of two images, a small network, and a folder of another method's files."""
    for folder in ("HR", "LR", "LR3", "LR8", "theirs", "others"):
        Path(folder).mkdir()
    for number in range(3):
        write_image(Path(f"LR3/{number}.png"), np.zeros((7, 9, 3), np.uint8))
    for number, path in enumerate(find_images(Path("images/train"))[:2]):
        image = np.ascontiguousarray(read_image(path)[:40, :48])
        write_image(Path(f"HR/img{number}.png"), image)
        write_image(Path(f"LR/img{number}x4.png"), bicubic_downscale(image, 4))
        write_image(Path(f"LR8/img{number}x8.png"), bicubic_downscale(image, 8))
        write_image(Path(f"theirs/img{number}_their_name.png"), image)
        write_image(Path(f"others/img{number}0.png"), image)
    untrained_network("net.pth")
    sets = ["--set", "Set5", "HR", "LR", "--set", "again", "HR", "LR"]
    methods = ["--checkpoint", "net.pth", "--temperature", "0", "0.1", "--num-samples", "3", "--bicubic"]
    others = ["--images", "theirs", "theirs", "--distance", "stlpips", "--workers", "1"]
    return ["benchmark", "-o", "out", *sets, *methods, *others]
