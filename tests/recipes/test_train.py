"""recipes/train.py: from a folder of images to a file, as small as it gets."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import yaml

from srflow_plugin import load_network
from srflow_plugin.images.files import write_image
from srflow_plugin.images.tensors import to_tensor
from srflow_plugin.training.setup import check_options
from tests.helpers import ROOT

RECIPES = ROOT / "recipes"
# Crops of 160 of a photograph of 400x401: its size (of 1, 3/4, 1/2, 1/3), top, left.
PARTS = [
    *((0, top, left) for top in (0, 240) for left in (0, 120, 241)),
    *((1, top, left) for top in (0, 140) for left in (0, 141)),
    (2, 0, 0),
]


@pytest.mark.parametrize("name", sorted(path.name for path in RECIPES.glob("*.yml")))
def test_option_files_are_right(name: str) -> None:
    assert yaml.safe_load((RECIPES / name).read_text())["train"]
    check_options(RECIPES / name)


@pytest.mark.slow
def test_one_command_makes_a_file_from_a_folder(tmp_path: Path) -> None:
    recipe = tmp_path / "recipes"
    shutil.copytree(RECIPES, recipe)
    for path in recipe.glob("*.yml"):
        opt = yaml.safe_load(path.read_text())
        opt["train"].update(total_iter=2)
        opt["train"]["scheduler"] = {"type": "MultiStepLR", "milestones": [1]}
        if "nll_opt" in opt["train"]:
            opt["train"].update(freeze_encoder_iters=1)
        del opt["val"]
        opt["network_g"].update(num_feat=8, num_grow_ch=4)
        opt["datasets"]["train"].update(dataset_enlarge_ratio=4)
        path.write_text(yaml.safe_dump(opt))
    images = tmp_path / "photographs"
    images.mkdir()
    for number in range(12):
        write_image(images / f"{number:02d}.png", skimage.data.chelsea()[number : number + 160, : 164 + number])
    write_image(images / "large.png", skimage.data.astronaut()[:400, :401])
    write_image(images / "flat.png", np.full((400, 400, 3), 128, np.uint8))
    write_image(images / "small.png", skimage.data.chelsea()[:159])
    command = [sys.executable, str(recipe / "train.py"), "--photographs", str(images), "--real", "-o", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    of = {
        folder: sorted(path.name for path in (tmp_path / "out/images" / folder).iterdir())
        for folder in ("photographs/held", "photographs/train", "crops", "crops_400")
    }
    assert of["photographs/held"] == ["05.png"]
    assert len(of["photographs/train"]) == 13 and "small.png" not in of["photographs/train"]
    assert of["crops_400"] == ["large_0_0_0.png"]
    whole = [f"{number:02d}_0_0_0.png" for number in range(12) if number != 5]  # 5 is held out
    parts = [f"large_{size}_{top}_{left}.png" for size, top, left in PARTS]
    assert of["crops"] == sorted(whole + parts)
    lq = to_tensor(skimage.data.chelsea()[:8, :12])
    for name in ("srflow_x4", "srflow_x4_real"):
        network = load_network(tmp_path / "out" / f"{name}.safetensors")
        assert network.sample(lq, 0).shape == (1, 1, 3, 32, 48)
        assert (network.prior is not None) == (name == "srflow_x4")
