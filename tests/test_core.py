"""What needs no more than ``pip install`` of the package itself works without anything else, and the rest says so."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path
from subprocess import CompletedProcess

import cv2
import numpy as np
import pytest

from srflow_plugin.errors import install_command
from srflow_plugin.images.files import read_image, write_image
from tests.helpers import noise_image, opencv_image, run_python

EXTRAS = re.compile(r"extra\s*==")


def required_by(names: Iterator[str] | list[str], seen: set[str]) -> set[str]:
    """Collect what pip installs with distributions, and them, as far as it is installed here."""
    for name in (re.split(r"[^\w.-]", name)[0].lower().replace("_", "-") for name in names):
        if name not in seen:
            seen.add(name)
            try:
                needed = requires(name) or []
            except PackageNotFoundError:  # on another system or Python
                continue
            required_by([line for line in needed if not EXTRAS.search(line)], seen)
    return seen


def modules_of(name: str) -> set[str]:
    """List the top-level modules of a distribution; none where it is not installed."""
    try:
        installed = distribution(name)
    except PackageNotFoundError:
        return set()
    listed = (installed.read_text("top_level.txt") or "").split()
    return {*listed, *(file.parts[0].partition(".")[0] for file in installed.files or ())}


def core_modules() -> set[str]:
    """List the modules that come with the package: the standard library's, and those of what it requires."""
    distributions = required_by(["srflow_plugin"], set())
    return {"srflow_plugin", *sys.stdlib_module_names}.union(*map(modules_of, distributions))


CORE_ONLY = f"""
import sys

class NothingElse:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in {sorted(core_modules())} and not top.startswith("__editable__"):
            raise ModuleNotFoundError("No module named " + repr(top), name=top)

sys.meta_path.insert(0, NothingElse())
for name in ("basicsr", "cv2", "scipy", "skimage", "tqdm", "yaml", "lmdb", "torchvision", "matplotlib", "gradio"):
    try:
        __import__(name)
    except ImportError:
        assert name not in sys.modules
    else:
        raise AssertionError(name + " is there")
"""


def run_core(code: str, folder: Path) -> CompletedProcess[str]:
    return run_python(CORE_ONLY + code, cwd=folder)


def command(name: str, *arguments: str) -> str:
    return f"from srflow_plugin.cli.main import {name}_command as run\nraise SystemExit(run({list(arguments)}))"


def test_the_core_is_what_it_is_said_to_be() -> None:
    modules = core_modules()
    assert {"torch", "numpy", "PIL", "safetensors", "srflow_plugin", "json"} <= modules
    assert not {"basicsr", "cv2", "scipy", "skimage", "tqdm", "yaml", "lmdb", "torchvision", "gradio"} & modules


FUNCTIONS = """
import numpy as np, torch
from PIL import Image
import srflow_plugin
from srflow_plugin import SRFlowNet, bicubic_downscale, load_network, upscale
from srflow_plugin.applications.editing import interpolate, restore, transfer_content
from srflow_plugin.applications.latents import read_latents, save_latents
from srflow_plugin.applications.maps import nll_map, sample_std
from srflow_plugin.images.files import read_image, write_image
from srflow_plugin.images.photographs import from_array
from srflow_plugin.images.rows import read_photograph
from srflow_plugin.images.writing import write_photograph
from srflow_plugin.images.pictures import contact_sheet, heat_map
from srflow_plugin.images.tensors import to_pixels, to_tensor

torch.manual_seed(0)
hr = read_image(__import__("pathlib").Path("hr.png"))
small = bicubic_downscale(hr, 4)
gt, lq = to_tensor(hr), to_tensor(small)
own = SRFlowNet(num_feat=4, num_grow_ch=4, num_block=1, feature_blocks=[0], num_steps=1, hidden_channels=4).eval()
for network in (load_network("srflow_x4"), own):
    with torch.no_grad():
        latents, logdet = network.encode(gt, lq)
        assert (network.decode(latents, lq) - gt).abs().max() < 1e-3
        nll = network(gt, lq)
        assert abs(nll - nll_map(network, gt, lq).mean()) < 1e-4
    for options in ({}, {"resample": 0.8}, {"tile": 5, "progress": True}, {"tile": "auto"}):
        assert network.sample(lq, 0.8, 2, seed=0, **options).shape == (2, 1, 3, 32, 48)
    assert sample_std(network, lq, num_samples=2).shape == (1, 32, 48)
    assert interpolate(network, gt, gt.flip(3), lq, 3).shape == (3, 1, 3, 32, 48)
    assert transfer_content(network, gt, lq, lq).shape == restore(network, gt, lq).shape == gt.shape
save_latents("latents.safetensors", latents, lq)
assert torch.equal(read_latents("latents.safetensors")[1], lq)
assert load_network("srflow_x8_face").scale == 8

arrays = upscale(small, num_samples=2)
assert arrays.shape == (2, 32, 48, 3) and arrays.dtype == np.uint8
(picture,) = upscale(Image.fromarray(small))
assert np.array_equal(np.asarray(picture), upscale(small)[0])
assert upscale(lq).shape == (1, 1, 3, 32, 48)
differences = heat_map(arrays.std(0).mean(2), "grey levels")
sheet = contact_sheet([("LR", small), ("sample", arrays[0]), ("map", differences)], 32)
write_image(__import__("pathlib").Path("sheet.png"), sheet)
write_photograph(__import__("pathlib").Path("deep.png"), from_array(arrays[0].astype(np.uint16) * 257))
print("done")
"""


@pytest.mark.slow
def test_functions(tmp_path: Path) -> None:
    write_image(tmp_path / "hr.png", cv2.resize(noise_image(6, 9), (48, 32), interpolation=cv2.INTER_CUBIC))
    done = run_core(FUNCTIONS, tmp_path)
    assert done.returncode == 0 and done.stdout == "done\n", done.stderr
    assert "tile 1 of" in done.stderr  # what stands in for tqdm
    assert opencv_image(tmp_path / "deep.png").dtype == np.uint16
    assert read_image(tmp_path / "sheet.png").shape[0] > 32


@pytest.mark.slow
def test_commands(tmp_path: Path) -> None:
    write_image(tmp_path / "p.png", noise_image(8, 12))
    commands = [
        "upscale p.png -o o --num-samples 2 --std --sheet --mean",
        "upscale p.png p.png -o one.png --temperature 0",
        "encode p.png -o p.safetensors",
        "decode p.safetensors -o back.png",
        "nll-map p.png -o nll.png",
        "std-map p.png -o std.npy --num-samples 2",
        "redraw p.png --mask p.png",
        "convert p.pth p.safetensors --overwrite",
    ]
    code = f"""
import torch
from srflow_plugin import SRFlowNet
from srflow_plugin.cli.main import srflow_command
torch.save(dict(params=SRFlowNet(num_feat=4, num_block=1, feature_blocks=[0], num_steps=1).state_dict()), "p.pth")
for line in {commands}:
    assert srflow_command(line.split()) == 0, line
"""
    done = run_core(code, tmp_path)
    assert done.returncode == 0, done.stderr
    kinds = ("sample0", "sample1", "mean", "std", "sheet")
    assert {path.name for path in (tmp_path / "o").iterdir()} == {f"p_{kind}.png" for kind in kinds}
    assert np.array_equal(read_image(tmp_path / "back.png"), read_image(tmp_path / "p.png"))
    assert np.load(tmp_path / "std.npy").shape == (32, 48)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("basicsr", "train -opt x.yml"),
        ("basicsr", "test -opt x.yml"),
        ("srflow", "prepare images -o out"),
        pytest.param("srflow", "benchmark --bicubic -o out --set a images images", marks=pytest.mark.slow),
        pytest.param("srflow", "demo", marks=pytest.mark.slow),
    ],
)
def test_what_needs_more_says_which(name: str, arguments: str, tmp_path: Path) -> None:
    write_image(tmp_path / "hr.png", noise_image(8, 12))
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images" / "a.png", noise_image(8, 12))
    (tmp_path / "x.yml").write_text("name: x\n")
    done = run_core(command(name, *arguments.split()), tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    extra = "demo" if arguments == "demo" else "train"
    assert line.startswith(f"{name}: error: ") and f"which is not installed: {install_command(extra)}" in line


def test_a_check_says_so_once_and_not_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.yml").write_text("name: x\n")
    done = run_core(command("basicsr", "check", "x.yml", "x.yml"), tmp_path)
    assert done.returncode == 2 and done.stdout == "", done.stdout
    (line,) = done.stderr.splitlines()
    assert f"which is not installed: {install_command('train')}" in line


@pytest.mark.slow
def test_deep_colour_needs_opencv(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "deep.png"), noise_image(8, 12).astype(np.uint16) * 257 + 3)
    done = run_core(command("srflow", "upscale", "deep.png", "-o", "out"), tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "deep.png: it has 16 bits a channel, which needs OpenCV: pip install opencv-python" in line
    assert not (tmp_path / "out").exists()
