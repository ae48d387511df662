"""Validation of SRFlow: every temperature measured, drawn and counted; the mean weights are what is validated."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from basicsr.data import build_dataloader, build_dataset
from basicsr.models import build_model
from basicsr.utils import get_root_logger
from torch.utils.data import DataLoader

from srflow_plugin.data.checked import read_bgr
from srflow_plugin.images.files import read_image
from srflow_plugin.images.resize import bicubic_upscale
from srflow_plugin.images.tensors import to_pixels
from srflow_plugin.models import validation
from srflow_plugin.options.schema import Section
from srflow_plugin.sampling.draw import draw
from tests.helpers import model_batch, train_model


class Board:
    """Stands in for a SummaryWriter."""

    def __init__(self) -> None:
        self.scalars: dict[str, float] = {}
        self.images: dict[str, Any] = {}

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars[name] = value

    def add_image(self, name: str, image: Any, step: int, dataformats: str) -> None:
        self.images[name] = image


def val_loader(opt: Section) -> DataLoader[Any]:
    loader: DataLoader[Any] = build_dataloader(build_dataset(opt["datasets"]["val"]), opt["datasets"]["val"])
    return loader


def test_validation_measures_every_temperature_and_draws(tiny_options: Section) -> None:
    model = build_model(tiny_options)
    train_model(model, 1, 1)
    board = Board()
    model.validation(val_loader(tiny_options), 1, board, save_img=True)
    names = {"psnr_tau0", "psnr_tau0.8", "psnr_bicubic"}
    assert set(model.metric_results) == names
    assert set(board.scalars) == {f"metrics/held_out/{name}" for name in [*names, "nonfinite", "exploded"]}
    assert board.scalars["metrics/held_out/nonfinite"] == 0
    assert model.best_metric_results["held_out"]["psnr_tau0"]["iter"] == 1
    assert model.net_g.training

    folder = Path(tiny_options["path"]["visualization"]) / "0"
    files = {path.stem.removeprefix("0_1") for path in folder.iterdir()}
    assert files == {"_tau0", "_tau0.8_0", "_tau0.8_1", "_bicubic", "_grid"}
    grid = read_bgr(folder / "0_1_grid.png")
    assert grid.shape[:2] == (24 + 44, 6 * 52 + 5 * 4)  # LR, bicubic, tau 0, two samples, GT
    assert board.images["held_out/0"].shape == grid.shape
    assert (grid[24:, -52:] == read_bgr(Path("images/val/0.png"))).all()  # GT is what was held out

    first = dict(model.metric_results)
    model.validation(val_loader(tiny_options), 2, None, save_img=False)
    assert model.metric_results == first  # val.seed


def test_validation_measures_the_nll_once(tiny_options: Section) -> None:
    tiny_options["val"]["metrics"]["nll"] = {"type": "calculate_nll"}
    model = build_model(tiny_options)
    train_model(model, 1, 1)
    model.validation(val_loader(tiny_options), 1, None, save_img=False)
    assert set(model.metric_results) == {"nll", "psnr_tau0", "psnr_tau0.8", "psnr_bicubic"}
    item = next(iter(val_loader(tiny_options)))
    assert model.metric_results["nll"] == pytest.approx(float(model.net_g_ema.code_length(item["gt"], item["lq"])))
    first = model.metric_results["nll"]
    train_model(model, 2, 4)
    model.validation(val_loader(tiny_options), 4, None, save_img=False)
    lowest = min(first, model.metric_results["nll"])
    assert first != lowest and model.best_metric_results["held_out"]["nll"]["val"] == lowest


def break_samples(network: Any, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let the first sample have values that are not finite, as often as that, and the others explode nowhere."""
    decode, broken_times = network.decode_features, iter(range(times))

    def broken(*args: Any) -> torch.Tensor:
        images: torch.Tensor = decode(*args).clamp(0, 1)
        if next(broken_times, None) is not None:
            images[0, 0, 0, :3] = torch.tensor([float("nan"), float("inf"), 1.0])
        return images

    monkeypatch.setattr(network, "decode_features", broken)


def test_validation_counts_drawn_samples_alone(
    tiny_options: Section, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build_model(tiny_options)
    train_model(model, 1, 1)
    break_samples(model.net_g_ema, monkeypatch, times=2)
    board = Board()
    model.validation(val_loader(tiny_options), 1, board, save_img=False)
    assert board.scalars["metrics/held_out/nonfinite"] == 2 * 2  # two temperatures, not bicubic
    assert board.scalars["metrics/held_out/exploded"] == 2
    # one sample of tau = 0, two of tau = 0.8; bicubic is none
    assert "held_out: 2 of 3 samples exploded, 4 values are not finite. Lower val.temp" in capsys.readouterr().err


def test_what_exploded_is_counted_and_then_drawn_again(tiny_options: Section, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_options["val"].update(resample=0.5, temperature=0.8)
    model = build_model(tiny_options)
    train_model(model, 1, 1)
    break_samples(model.net_g_ema, monkeypatch, times=1)
    model.feed_data({"lq": model_batch()["lq"][:1]})
    model.test()
    assert model.exploded == 1 and model.output.shape == (2, 3, 16, 16) and model.output.isfinite().all()


@pytest.mark.parametrize("adaptive", [None, 0.0, 0.5])
def test_the_share_of_flat_areas_is_what_samples_are_drawn_with(tiny_options: Section, adaptive: float | None) -> None:
    tiny_options["val"].update(adaptive=adaptive, temperature=0.8)
    model = build_model(tiny_options)
    lq = torch.full((1, 3, 4, 4), 0.5)
    model.feed_data({"lq": lq})
    model.test()
    temperature = 0.8 * (1 if adaptive is None else adaptive)
    expected = model.val_network().eval().sample(lq, temperature, 2, seed=0)
    torch.testing.assert_close(model.output, expected.flatten(0, 1))


def test_an_image_is_encoded_once(tiny_options: Section) -> None:
    tiny_options["val"].update(temperature=[0.5, 0.8])  # and 0 for the picture
    tiny_options["val"]["metrics"]["nll"] = {"type": "calculate_nll"}
    model = build_model(tiny_options)
    train_model(model, 1, 1)
    encoded = []
    model.net_g_ema.encoder.conv_first.register_forward_pre_hook(lambda *_: encoded.append(1))
    model.validation(val_loader(tiny_options), 1, None, save_img=True)
    assert encoded == [1]


def test_a_picture_has_the_mean_and_the_highest_temperature(tiny_options: Section) -> None:
    tiny_options["val"].update(temperature=0.5, bicubic=False, num_samples=5)
    model = build_model(tiny_options)
    train_model(model, 1, 1)
    model.validation(val_loader(tiny_options), 1, None, save_img=True)
    folder = Path(tiny_options["path"]["visualization"]) / "0"
    assert {path.stem.removeprefix("0_1") for path in folder.iterdir()} == {*(f"_{n}" for n in range(5)), "_grid"}
    grid = read_image(folder / "0_1_grid.png")
    assert grid.shape[1] == 7 * 52 + 6 * 4  # LR, bicubic, tau 0, three samples, GT
    left = [(52 + 4) * column for column in range(7)]
    columns = [grid[24:, start : start + 52] for start in left]
    assert np.array_equal(columns[1], to_pixels(bicubic_upscale(model.lq, 4)[0]))
    assert np.array_equal(columns[3], read_image(folder / "0_1_0.png"))
    assert np.array_equal(columns[6], read_image(Path("images/val/0.png")))  # RGB
    assert set(model.metric_results) == {"psnr"}


def test_a_training_outlives_a_disk_that_has_no_room_for_pictures(
    tiny_options: Section, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, picture: np.ndarray) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    model = build_model(tiny_options)
    monkeypatch.setattr(validation, "write_image", full)
    get_root_logger().addHandler(caplog.handler)
    try:
        model.validation(val_loader(tiny_options), 1, None, save_img=True)
    finally:
        get_root_logger().removeHandler(caplog.handler)
    assert "could not be written: No space left on device. Training goes on." in caplog.text
    assert model.metric_results["psnr_tau0"] > 0
    model.is_train = False  # a test's pictures are what it is for
    with pytest.raises(OSError, match="No space left"):
        model.validation(val_loader(tiny_options), 1, None, save_img=True)


def test_tiles_change_nothing_where_one_holds_the_image(tiny_options: Section) -> None:
    metrics = []
    for tile in (None, 64, "auto"):
        tiny_options["val"].update(tile=tile)
        torch.manual_seed(0)
        model = build_model(tiny_options)
        train_model(model, 1, 1)
        model.validation(val_loader(tiny_options), 1, None, save_img=False)
        metrics.append(model.metric_results)
    assert metrics[1] == pytest.approx(metrics[0], rel=1e-4) and metrics[2] == pytest.approx(metrics[0], rel=1e-4)


def test_images_without_ground_truth_are_sampled_all_the_same(tiny_options: Section) -> None:
    model = build_model(tiny_options)
    train_model(model, 1, 1)
    model.feed_data({"lq": model_batch()["lq"]})
    model.test()
    visuals = model.get_current_visuals()
    assert set(visuals) == {"lq", "result"}
    assert visuals["result"].shape == (2, 3, 16, 16)


def test_each_image_has_a_seed_of_its_own_and_leaves_no_samples_behind(
    tiny_options: Section, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_options["datasets"]["val"].update(dataroot_gt="data/train_HR.lmdb", dataroot_lq="data/train_LRx4.lmdb")
    tiny_options["val"].update(seed=5, temperature=0.8)
    tiny_options["val"]["metrics"]["bits"] = {"type": "calculate_code_length"}
    model = build_model(tiny_options)
    train_model(model, 1, 1)
    seeds: list[int] = []

    def spy(network: Any, lq: Any, temperature: float, num_samples: int, seed: int, **options: Any) -> Any:
        seeds.append(seed)
        return draw(network, lq, temperature, num_samples, seed, **options)

    monkeypatch.setattr("srflow_plugin.models.validation.draw", spy)
    loader = val_loader(tiny_options)
    model.validation(loader, 1, None, save_img=False)
    images = len(loader.dataset)  # type: ignore[arg-type]
    assert sorted(set(seeds)) == list(range(5, 5 + images)) and images > 1
    assert not hasattr(model, "output") and not hasattr(model, "gt") and model.features is None
