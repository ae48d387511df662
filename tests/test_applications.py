"""What an invertible model can do beyond sampling: functions, commands and their files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import image_pair, small_network

from srflow_plugin import SRFlowNet, bicubic_downscale
from srflow_plugin.applications import interpolate, nll_map, restore, sample_std, transfer_content
from srflow_plugin.cli.main import srflow_command
from srflow_plugin.errors import UserError
from srflow_plugin.latents import interpolate_latents, normalize_latents, read_latents, save_latents

STAND = {"rtol": 1e-4, "atol": 1e-4}


def random_latents(network: SRFlowNet, h: int, w: int, batch: int = 2, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, *shape, generator=generator) for shape in network.latent_shapes(h, w)]


def test_interpolation_ends_at_both_images_and_keeps_to_the_sphere() -> None:
    network = small_network()
    gt, lq = image_pair(4, 6, 4)
    other = (gt + 0.05).clamp(0, 1)
    images = interpolate(network, gt, other, lq, steps=3)
    assert images.shape == (3, *gt.shape)
    torch.testing.assert_close(images[0], gt, **STAND)
    torch.testing.assert_close(images[2], other, **STAND)
    assert not torch.allclose(images[1], (gt + other) / 2, **STAND)

    first, second = (random_latents(network, 24, 24, seed=seed) for seed in (0, 1))
    for weight in (0.0, 0.25, 0.5, 1.0):
        between = interpolate_latents(first, second, weight)
        std = torch.cat([latent.flatten() for latent in between]).std()
        assert std == pytest.approx(1, abs=0.02)  # on a straight line 0.71 half way
    for latents, weight in ((first, 0.0), (second, 1.0)):
        for latent, expected in zip(interpolate_latents(first, second, weight), latents, strict=True):
            torch.testing.assert_close(latent, expected)
    for latent, expected in zip(interpolate_latents(first, first, 0.3), first, strict=True):
        torch.testing.assert_close(latent, expected)


def test_transferred_content_is_the_image_itself_on_its_own_lr_image_and_another_on_another() -> None:
    network = small_network()
    gt, lq = image_pair(4, 6, 4)
    torch.testing.assert_close(transfer_content(network, gt, lq, lq), gt, **STAND)
    other = 0.5 * lq
    image = transfer_content(network, gt, lq, other)
    latents, _ = network.encode(gt, lq)
    torch.testing.assert_close(image, network.decode(latents, other))
    assert not torch.allclose(image, gt, **STAND)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_normalised_latents_have_the_statistics_of_a_normal_everywhere(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(1, 2, 40, 40, generator=generator)
    spoilt = latent.clone()
    spoilt[:, 0, 10:30, 10:30] = 3 + 5 * latent[:, 0, 10:30, 10:30]
    (normalised,) = normalize_latents([spoilt], temperature, window=5)
    patch = normalised[0, 0, 14:26, 14:26]
    assert patch.mean().abs() < 0.05 and patch.std() == pytest.approx(temperature, rel=0.1)
    # where all is as it should be, little changes
    (kept,) = normalize_latents([latent], 1.0, window=31)
    assert (kept - latent).abs().mean() < 0.1
    (flat,) = normalize_latents([torch.ones(1, 1, 8, 8)])
    assert flat.abs().max() < 0.1


def test_restoration_decodes_normalised_latents() -> None:
    network = small_network()
    gt, lq = image_pair(4, 8, 8)
    latents, _ = network.encode(gt, lq)
    expected = network.decode(normalize_latents(latents, 0.7, 5), lq)
    torch.testing.assert_close(restore(network, gt, lq, temperature=0.7, window=5), expected)
    with pytest.raises(UserError, match="window must be odd"):
        restore(network, gt, lq, window=4)


def test_standard_deviation_over_samples() -> None:
    network = small_network()
    _, lq = image_pair(4, 5, 4)
    samples = network.sample(lq, 0.8, num_samples=6, seed=3).clamp(0, 1)
    expected = 255 * samples.std(0, correction=0).mean(1)
    torch.testing.assert_close(sample_std(network, lq, 0.8, 6, seed=3), expected, rtol=1e-3, atol=1e-3)
    assert sample_std(network, lq, 0.0, 2).max() < 1e-3
    with pytest.raises(UserError, match="num_samples must be 2 or more"):
        sample_std(network, lq, num_samples=1)


@pytest.mark.parametrize(("scale", "num_levels"), [(4, 3), (8, 4), (4, 2)])
def test_nll_map_adds_up_to_the_nll(scale: int, num_levels: int) -> None:
    network = small_network(scale, num_levels=num_levels).double()
    gt, lq = image_pair(scale, 4, 6, dtype=torch.float64)
    pixels = nll_map(network, gt, lq)
    assert pixels.shape == (2, scale * 4, scale * 6)
    torch.testing.assert_close(pixels.mean((1, 2)), network(gt, lq))
    assert not network.flow.levels[0].bijections[3].bijections[2].net._forward_hooks


def test_nll_map_shows_where_the_surprise_is() -> None:
    network = small_network()
    gt, lq = image_pair(4, 15, 15, batch=1)
    strange = gt.clone()
    strange[:, :, 24:32, 40:48] += torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    risen = (nll_map(network, strange, lq) - nll_map(network, gt, lq))[0]
    assert risen.shape == (60, 60)
    assert risen[24:32, 40:48].mean() > 20 * risen[:16, :16].abs().mean()


def test_latents_go_through_a_file(tmp_path: Path) -> None:
    network = small_network()
    gt, lq = image_pair(4, 6, 4)
    latents, _ = network.encode(gt, lq)
    save_latents(tmp_path / "a.safetensors", latents, lq)
    read, read_lq = read_latents(tmp_path / "a.safetensors")
    assert torch.equal(read_lq, lq)
    assert all(torch.equal(one, other) for one, other in zip(read, latents, strict=True))


# -- commands ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, entered, with a checkpoint, an HR image, one a little different, and an LR image."""
    monkeypatch.chdir(tmp_path)
    network = small_network(scale_floor=0.3)
    torch.save({"params": network.state_dict()}, "net.pth")
    coarse = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (52, 44), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite("hr.png", image)
    cv2.imwrite("other.png", cv2.GaussianBlur(image, (5, 5), 0))
    cv2.imwrite("lr.png", bicubic_downscale(image, 4))
    cv2.imwrite("odd.png", image[:43, :50])
    cv2.imwrite("dark.png", bicubic_downscale(image // 2, 4))
    return tmp_path


def run(*arguments: str) -> None:
    assert srflow_command([*arguments, "--checkpoint", "net.pth"]) == 0


@pytest.mark.usefixtures("studio")
def test_an_image_comes_back_from_its_latents_bit_for_bit(capsys: pytest.CaptureFixture[str]) -> None:
    run("encode", "hr.png", "-o", "a.safetensors")
    assert "NLL" in capsys.readouterr().out
    run("decode", "a.safetensors", "-o", "back.png")
    assert np.array_equal(cv2.imread("back.png"), cv2.imread("hr.png"))
    run("encode", "hr.png", "--lq", "lr.png", "-o", "b.safetensors")
    assert Path("a.safetensors").read_bytes() == Path("b.safetensors").read_bytes()
    run("decode", "a.safetensors", "--lq", "dark.png", "-o", "dark_back.png")
    assert not np.array_equal(cv2.imread("dark_back.png"), cv2.imread("hr.png"))
    run("encode", "odd.png", "-o", "odd.safetensors")
    assert "cropped to 48x40" in capsys.readouterr().err


@pytest.mark.usefixtures("studio")
def test_pictures_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    hr, other = cv2.imread("hr.png"), cv2.imread("other.png")
    run("interpolate", "hr.png", "other.png", "-o", "way", "--steps", "3")
    assert sorted(path.name for path in Path("way").iterdir()) == ["000.png", "001.png", "002.png", "grid.png"]
    assert np.array_equal(cv2.imread("way/000.png"), hr) and np.array_equal(cv2.imread("way/002.png"), other)
    run("transfer", "other.png", "hr.png", "-o", "transferred.png")
    run("restore", "hr.png", "-o", "restored.jpg", "--temperature", "0.5", "--window", "5")
    for name in ("transferred.png", "restored.jpg"):
        assert cv2.imread(name).shape == hr.shape
    assert not np.array_equal(cv2.imread("transferred.png"), other)

    capsys.readouterr()
    run("std-map", "lr.png", "-o", "std.npy", "--num-samples", "3")
    run("nll-map", "hr.png", "-o", "nll.npy")
    means = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines() if line.startswith("mean")]
    for name, mean in zip(("std", "nll"), means, strict=True):
        numbers = np.load(f"{name}.npy")
        assert numbers.shape == hr.shape[:2] and numbers.mean() == pytest.approx(mean, abs=1e-4)
    run("std-map", "lr.png", "-o", "std.png", "--num-samples", "3")
    run("nll-map", "hr.png", "-o", "nll.png")
    for name in ("std.png", "nll.png"):
        assert cv2.imread(name).shape[1] == hr.shape[1] and cv2.imread(name).shape[0] > hr.shape[0]


MISTAKES = {
    "missing image": ("encode nowhere.png -o new.safetensors", "nowhere.png does not exist"),
    "no image": ("encode net.pth -o new.safetensors", "net.pth is not a readable image"),
    "wrong suffix": ("encode hr.png -o a.png", "a.png must end in .safetensors"),
    "output there": ("nll-map hr.png -o lr.png", "lr.png exists; delete it or choose another name"),
    "no such folder": ("nll-map hr.png -o nowhere/a.png", "nowhere is not a folder"),
    "LR of another size": (
        "encode hr.png --lq hr.png -o new.safetensors",
        "hr.png has 52x44 pixels; hr.png needs 13x11",
    ),
    "HR of another size": ("interpolate hr.png odd.png -o way", "odd.png has 48x40 pixels, not 52x44"),
    "one step": ("interpolate hr.png other.png -o way --steps 1", "steps must be 2 or more"),
    "no latents": ("decode net.pth -o a.png", "net.pth is not a readable file of latents"),
    "LR of other latents": ("decode a.safetensors --lq odd.png -o a.png", "this network and LR image have"),
    "one sample": ("std-map lr.png -o a.png --num-samples 1", "num_samples must be 2 or more"),
    "negative temperature": ("std-map lr.png -o a.png --temperature -1", "temperature must be >= 0"),
    "even window": ("restore hr.png -o a.png --window 2", "window must be odd"),
}


@pytest.mark.usefixtures("studio")
def test_mistakes_get_one_line_and_leave_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    run("encode", "hr.png", "-o", "a.safetensors")
    capsys.readouterr()

    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in Path().iterdir()}

    before = contents()
    for mistake, (arguments, message) in MISTAKES.items():
        with pytest.raises(SystemExit) as stop:
            run(*arguments.split())
        errors = [line for line in capsys.readouterr().err.splitlines() if "cropped" not in line]
        assert stop.value.code == 2 and len(errors) == 1 and message in errors[0], mistake
        assert contents() == before, mistake
