"""The networks that come with the package do what the model card says, as far as images at hand can tell."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest
import skimage.data
from basicsr.metrics import calculate_psnr
from PIL import Image

import srflow_plugin
from srflow_plugin import bicubic_downscale, calculate_lr_psnr
from srflow_plugin.cli.main import srflow_command
from srflow_plugin.pictures import bicubic_upscale
from srflow_plugin.upscaling import SHIPPED, find_network

# photograph, where, scale; what tau = 0 must gain on bicubic by PSNR in dB; LR-PSNR of samples at tau = 0.8 in dB
CASES = [("chelsea", 40, 115, 256, 4, 0.3, 42.0), ("astronaut", 28, 157, 160, 8, 0.3, 35.0)]


def test_they_travel_in_the_wheel_and_are_small() -> None:
    weights = files("srflow_plugin") / "weights"
    sizes = [path.stat().st_size for path in SHIPPED.values()]
    assert {path.name for path in SHIPPED.values()} <= {entry.name for entry in weights.iterdir()}
    assert sum(sizes) < 12e6


@pytest.mark.parametrize(("name", "top", "left", "side", "scale", "gain", "consistency"), CASES)
def test_they_beat_bicubic_and_agree_with_the_lr_image(
    name: str, top: int, left: int, side: int, scale: int, gain: float, consistency: float
) -> None:
    gt = np.ascontiguousarray(getattr(skimage.data, name)()[top : top + side, left : left + side])
    lq = bicubic_downscale(gt, scale)
    tensor = srflow_plugin.upscaling._to_tensor(lq / np.float32(255))
    bicubic = (255 * bicubic_upscale(tensor, scale)[0].clamp(0, 1)).round().numpy().transpose(1, 2, 0)
    likely = srflow_plugin.upscale(lq, temperature=0, scale=scale)[0]
    assert calculate_psnr(likely, gt, crop_border=scale) > calculate_psnr(bicubic, gt, crop_border=scale) + gain
    samples = srflow_plugin.upscale(lq, num_samples=3, scale=scale)
    assert min(calculate_lr_psnr(sample, lq=lq, scale=scale) for sample in samples) > consistency
    assert np.std(samples.astype(float), axis=0).mean() > 1
    assert find_network(scale).scale == scale


def test_one_command_gives_a_picture(tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # type: ignore[arg-type]
    Image.fromarray(skimage.data.chelsea()[100:140, 100:150]).save("photo.jpg")
    assert srflow_command(["upscale", "photo.jpg", "-o", "out"]) == 0
    assert Image.open("out/photo.png").size == (200, 160)
