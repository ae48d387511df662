"""What several test files need: the images of ../shared, and networks whose weights hide nothing."""

from __future__ import annotations

import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from srflow_plugin import SRFlowNet
from srflow_plugin.cli.options import parse_options
from srflow_plugin.data.prepare import find_images, write_pairs

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of benchmark images, which is not part of the project."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} with the benchmark images is not on this machine")
    return folder


def perturb(module: nn.Module, seed: int = 0, amount: float = 0.05) -> nn.Module:
    """Move every parameter off its start: zero-initialised convolutions would hide errors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(amount * noise.to(parameter.dtype))
    return module


def small_network(scale: int = 4, **changes: Any) -> SRFlowNet:
    """A network of every kind of layer, small enough for the tests."""
    torch.manual_seed(0)
    arguments: dict[str, Any] = {
        "num_feat": 6,
        "num_grow_ch": 4,
        "num_block": 2,
        "feature_blocks": (0, 1),
        "num_steps": 2,
        "num_levels": {2: 2, 4: 3, 8: 4}[scale],
        "hidden_channels": 8,
    }
    network = SRFlowNet(scale=scale, **{**arguments, **changes})
    perturb(network)
    return network.eval()


def image_pair(scale: int, h: int, w: int, batch: int = 2, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """A smooth-ish HR image in [0, 1] and an LR image of h x w."""
    generator = torch.Generator().manual_seed(h * 100 + w)
    lq = torch.rand(batch, 3, h, w, generator=generator, dtype=dtype)
    gt = nn.functional.interpolate(lq, scale_factor=scale, mode="bilinear", align_corners=False)
    return (gt + 0.1 * torch.rand(gt.shape, generator=generator, dtype=dtype)).clamp(0, 1), lq


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, entered, with tiny.yml and its data sets."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(Path(__file__).with_name("tiny.yml"), tmp_path)
    make_data(tmp_path, width=52, height=44)
    return tmp_path


def make_data(folder: Path, width: int, height: int) -> None:
    """What tiny.yml reads, in ``folder``: three training images and one for validation, as files and as LMDBs."""
    rng = np.random.default_rng(0)
    for phase, count in (("train", 3), ("val", 1)):
        images = folder / "images" / phase
        images.mkdir(parents=True)
        for number in range(count):
            coarse = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
            cv2.imwrite(
                str(images / f"{number}.png"), cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
            )
        data = folder / "data"
        write_pairs(find_images(images), data / f"{phase}_HR.lmdb", data / f"{phase}_LRx4.lmdb", 4)


@pytest.fixture
def tiny_options(workplace: Path) -> dict[str, Any]:
    """What ``basicsr train -opt tiny.yml`` hands to the model."""
    args = Namespace(opt="tiny.yml", launcher="none", auto_resume=False, debug=False, force_yml=None)
    return parse_options(args, workplace, is_train=True)
