"""The networks that come with the package do what the model card says, as far as images at hand can tell."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from basicsr.metrics import calculate_psnr

import srflow_plugin
from srflow_plugin import bicubic_downscale, calculate_lr_psnr
from srflow_plugin.applications.upscale import find_network
from srflow_plugin.checkpoints.shipped import SHIPPED, find_checkpoint
from srflow_plugin.errors import UserError
from srflow_plugin.images.resize import bicubic_upscale
from srflow_plugin.images.tensors import to_pixels, to_tensor

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
    bicubic = to_pixels(bicubic_upscale(to_tensor(lq), scale)[0])
    likely = srflow_plugin.upscale(lq, temperature=0, scale=scale)[0]
    assert calculate_psnr(likely, gt, crop_border=scale) > calculate_psnr(bicubic, gt, crop_border=scale) + gain
    samples = srflow_plugin.upscale(lq, num_samples=3, scale=scale)
    assert min(calculate_lr_psnr(sample, lq=lq, scale=scale) for sample in samples) > consistency
    assert np.std(samples.astype(float), axis=0).mean() > 1
    assert find_network(scale).scale == scale


def test_a_name_is_a_file_first_and_a_network_of_the_package_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint(None) == find_checkpoint(None, 4) == find_checkpoint("srflow_x4") == SHIPPED[4]
    assert find_checkpoint("srflow_x8_face", 4) == SHIPPED[8]  # whether the scale is right is asked of the network
    Path("srflow_x4").write_bytes(b"mine")
    assert find_checkpoint("srflow_x4") == Path("srflow_x4")
    for name, scale, message in (("srflow_x2", None, "srflow_x2 does not exist"), (None, 2, "networks for 4")):
        with pytest.raises(UserError, match=message):
            find_checkpoint(name, scale)
