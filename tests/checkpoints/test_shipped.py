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
from srflow_plugin.checkpoints.load import load_network
from srflow_plugin.checkpoints.shipped import SHIPPED, Shipped, candidates, find_checkpoint
from srflow_plugin.errors import UserError
from srflow_plugin.images.resize import bicubic_upscale
from srflow_plugin.images.tensors import to_pixels, to_tensor

# photograph, where, scale; what tau = 0 must gain on bicubic by PSNR in dB; LR-PSNR of samples at tau = 0.8 in dB
CASES = [("chelsea", 40, 115, 256, 4, 0.3, 42.0), ("astronaut", 28, 157, 160, 8, 0.3, 35.0)]


def test_they_travel_in_the_wheel_and_are_small() -> None:
    weights = files("srflow_plugin") / "weights"
    paths = [one.path for one in SHIPPED.values()]
    assert {path.name for path in paths} <= {entry.name for entry in weights.iterdir()}
    assert sum(path.stat().st_size for path in paths) < 18e6


@pytest.mark.parametrize("one", SHIPPED.values(), ids=SHIPPED)
def test_they_are_of_the_scale_that_the_table_says(one: Shipped) -> None:
    assert load_network(one.name).scale == one.scale


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
    assert find_checkpoint(None) == find_checkpoint(None, 4) == find_checkpoint("srflow_x4") == SHIPPED["photo"].path
    assert (
        find_checkpoint("srflow_x8_face", 4) == SHIPPED["face"].path
    )  # whether the scale is right is asked of the network
    Path("srflow_x4").write_bytes(b"mine")
    assert find_checkpoint("srflow_x4") == Path("srflow_x4")
    assert (
        find_checkpoint("srflow_x4_real") == SHIPPED["real"].path and find_checkpoint(None, 8) == SHIPPED["face"].path
    )
    for name, scale, message in (
        ("srflow_x2", None, "srflow_x2 does not exist; did you mean srflow_x4?"),
        ("srflow_x4_reel", None, "did you mean srflow_x4_real?"),
        ("real", None, "did you mean srflow_x4_real?"),
        ("nowhere/net.pth", None, "nowhere/net.pth does not exist; correct the path"),
        (None, 2, "networks for 4"),
    ):
        with pytest.raises(UserError, match=message):
            find_checkpoint(name, scale)


@pytest.mark.parametrize(
    ("word", "checkpoint", "scale", "names"),
    [
        ("photo", None, None, ["srflow_x4"]),
        ("real", None, 4, ["srflow_x4_real"]),
        ("face", None, 8, ["srflow_x8_face"]),
        ("auto", None, None, ["srflow_x4", "srflow_x4_real"]),
        ("auto", None, 4, ["srflow_x4", "srflow_x4_real"]),
        (None, None, None, ["srflow_x4", "srflow_x4_real"]),
        (None, None, 4, ["srflow_x4", "srflow_x4_real"]),
        (None, None, 8, ["srflow_x8_face"]),
        (None, "srflow_x4_real", None, ["srflow_x4_real"]),
    ],
)
def test_words_for_networks(word: str | None, checkpoint: str | None, scale: int | None, names: list[str]) -> None:
    assert [path.stem for path in candidates(word, checkpoint, scale)] == names


@pytest.mark.parametrize(
    ("word", "checkpoint", "scale", "message"),
    [
        ("reel", None, None, "network 'reel' is not known; did you mean real?"),
        ("fotograph", "net.pth", None, "'fotograph' is not known; "),
        ("real", "net.pth", None, "network real and checkpoint net.pth are two answers"),
        ("auto", "net.pth", None, "give one of them"),
        ("face", None, 4, "network face is of scale 8, not 4; leave the scale out, or choose photo or real"),
        ("auto", None, 8, "network auto is of scale 4, not 8; leave the scale out, or choose face"),
        ("photo", None, 3, "network photo is of scale 4, not 3; leave the scale out$"),
    ],
)
def test_words_that_do_not_fit(word: str, checkpoint: str | None, scale: int | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        candidates(word, checkpoint, scale)
