"""weights/train.py: from a folder of images to a file, as small as it gets."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import skimage.data
import yaml
from basicsr.utils import img2tensor

from srflow_plugin import load_network
from srflow_plugin.cli.checks import check_options
from srflow_plugin.option_files import load_options

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"


@pytest.mark.parametrize("name", sorted(path.name for path in WEIGHTS.glob("*.yml")))
def test_option_files_are_right(name: str) -> None:
    check_options(load_options(WEIGHTS / name), is_train=True)


def test_one_command_makes_a_file_from_a_folder(tmp_path: Path) -> None:
    recipe = tmp_path / "weights"
    shutil.copytree(WEIGHTS, recipe)
    for path in recipe.glob("*.yml"):
        opt = yaml.safe_load(path.read_text())
        opt["train"].update(total_iter=2)
        opt["train"]["scheduler"]["milestones"] = [1]
        if "SRFlow" in path.name:
            opt["train"].update(freeze_encoder_iters=1)
        del opt["val"]
        opt["network_g"].update(num_feat=8, num_grow_ch=4)
        opt["datasets"]["train"].update(dataset_enlarge_ratio=1)
        path.write_text(yaml.safe_dump(opt))
    images = tmp_path / "photographs"
    images.mkdir()
    for number in range(25):
        cv2.imwrite(str(images / f"{number:02d}.png"), skimage.data.chelsea()[number : number + 160, : 164 + number])
    command = [
        sys.executable,
        str(recipe / "train.py"),
        "--photographs",
        str(images),
        "-o",
        "out",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    held = sorted(path.name for path in (tmp_path / "out/images/photographs/held").iterdir())
    assert held == ["10.png"] and len(list((tmp_path / "out/images/photographs/train").iterdir())) == 24
    lq = img2tensor(cv2.imread(str(images / "00.png"))[:8, :12] / 255.0)[None]
    assert load_network(tmp_path / "out" / "srflow_x4.safetensors").sample(lq, 0).shape == (1, 1, 3, 32, 48)
