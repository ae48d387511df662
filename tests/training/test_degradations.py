"""Degradations on the fly: BasicSR's pipeline, the same images whoever makes them, and trainings that go on."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from basicsr.data.degradations import circular_lowpass_kernel
from basicsr.data.realesrgan_dataset import RealESRGANDataset
from basicsr.models.realesrnet_model import RealESRNetModel
from basicsr.utils import DiffJPEG, USMSharp
from basicsr.utils.registry import DATASET_REGISTRY

from srflow_plugin.cli.main import basicsr_command
from srflow_plugin.data.build import checked_images
from srflow_plugin.data.checked import CheckedImages
from srflow_plugin.images.resize import differentiable_downscale
from srflow_plugin.options.schema import Degradations, Section, read
from srflow_plugin.training.cuda_names import OnCPU
from srflow_plugin.training.degradations import Degrader
from srflow_plugin.training.order import Draws
from srflow_plugin.training.seeds import degradation_seeds, seeded
from srflow_plugin.training.setup import load_run
from tests.helpers import TINY, assert_same_networks, run, torchrun
from tests.training.test_basicsr_models import DEGRADATIONS, REAL_DATA

STRONG = {**DEGRADATIONS, "gt_usm": False, "scale": 4}


def degrader(**changes: Any) -> Degrader:
    return Degrader(read(Degradations, {**STRONG, **changes}), 4, torch.device("cpu"))


def batch(count: int, side: int = 96) -> Section:
    """Make images and kernels as RealESRGANDataset gives them."""
    generator = torch.Generator().manual_seed(count)
    coarse = torch.rand(count, 3, side // 8, side // 8, generator=generator)
    kernels = [circular_lowpass_kernel(1 + 0.3 * number, 21, pad_to=21) for number in range(count)]
    kernel = torch.tensor(np.stack(kernels), dtype=torch.float32)
    images = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bicubic").clamp(0, 1)
    gt = (images * 255).round() / 255
    return {"gt": gt, "kernel1": kernel, "kernel2": kernel.flip(0), "sinc_kernel": kernel}


def generators() -> tuple[Any, ...]:
    """Read where the generators of this process are."""
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()


def basicsr_pair(data: Section, opt: Section, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Make the pair that BasicSR's own model makes of an image."""
    model: Any = RealESRNetModel.__new__(RealESRNetModel)
    model.opt, model.is_train, model.device, model.queue_size = opt, True, torch.device("cpu"), 1
    with OnCPU(), seeded(seed):
        model.jpeger, model.usm_sharpener = DiffJPEG(differentiable=False), USMSharp()
        model.feed_data(data)
    return model.gt, model.lq


@pytest.mark.parametrize("gt_usm", [False, True])
def test_the_pipeline_is_basicsrs(gt_usm: bool) -> None:
    opt = {**STRONG, "gt_usm": gt_usm}
    for seed in range(4 if gt_usm else 16):
        data = {key: value[:1] for key, value in batch(1 + seed % 5).items()}
        gt, lq = basicsr_pair(data, opt, seed)
        ours = degrader(**opt)(data, [seed])
        assert torch.equal(ours["gt"], gt)
        # A coefficient of JPEG may be rounded to the other side.
        assert (ours["lq"] - lq).abs().max() < 2.1 / 255 and (ours["lq"] != lq).float().mean() < 0.01, seed


def test_an_image_is_the_same_in_any_batch_and_disturbs_no_other() -> None:
    data = batch(4)
    seeds = degradation_seeds(0, [5, 6, 7, 8])
    together = degrader(clean_prob=0.3)(data, seeds)
    before = generators()
    for number in (2, 0):
        alone = degrader(clean_prob=0.3)(
            {key: value[number : number + 1] for key, value in data.items()}, seeds[number:]
        )
        for key in ("gt", "lq"):
            assert torch.equal(alone[key][0], together[key][number])
    assert generators() == before
    other = degrader(clean_prob=0.3)(data, degradation_seeds(1, [5, 6, 7, 8]))
    assert not any(torch.equal(*images) for images in zip(together["lq"], other["lq"], strict=True))
    assert together["lq"].shape == (4, 3, 8, 8) and torch.equal(together["lq"], (together["lq"] * 255).round() / 255)


def test_the_share_of_clean_images_is_matlabs() -> None:
    data = batch(6)
    expected = (differentiable_downscale(data["gt"], 4) * 255).round().clamp(0, 255) / 255
    for share, counts in ((0.0, {0}), (0.5, {1, 2, 3, 4, 5}), (1.0, {6})):
        lq = degrader(clean_prob=share, gt_size=96)(data, range(6))["lq"]
        assert sum(torch.equal(*images) for images in zip(lq, expected, strict=True)) in counts


def test_a_resize_may_be_antialiased() -> None:
    image = batch(1)["gt"]
    resized = degrader(resize_modes=["bicubic_antialiased"]).resize(image, size=[24, 24])
    difference = (resized - differentiable_downscale(image, 4)).abs()
    assert difference[:, :, 3:-3, 3:-3].max() < 1e-5 < difference.max()  # at borders MATLAB mirrors
    filters = {tuple(degrader().resize(image, size=[24, 24])[0, 0, 9, 9:12].tolist()) for _ in range(40)}
    assert len(filters) == 3


def option_file(**changes: Any) -> Section:
    """Make tiny.yml's training on degraded images, with Real-ESRGAN's own values."""
    opt: Section = yaml.safe_load(TINY.read_text())
    images = {key: value for key, value in REAL_DATA.items() if key != "meta_info"}
    train = {key: value for key, value in opt["datasets"]["train"].items() if key not in ("dataroot_lq", "gt_size")}
    opt["datasets"]["train"] = {**train, **images}
    opt["train"]["optim_g"]["lr"] = 1e-3
    values = {key: value for key, value in DEGRADATIONS.items() if "usm" not in key and key != "queue_size"}
    return {**opt, **values, "gt_size": 16, **changes}


def checked(*changes: str) -> CheckedImages:
    """Build the data set of a training's option file."""
    Path("it.yml").write_text(yaml.safe_dump(option_file()))
    return checked_images(load_run("it.yml", is_train=True, force=changes).opt["datasets"]["train"], "datasets.train")


FILES = ("datasets.train.io_backend.type=disk", "datasets.train.dataroot_gt=images/train")


@pytest.mark.usefixtures("workplace")
def test_a_folder_needs_no_list_and_names_may_have_spaces() -> None:
    Path("images/train/0.png").rename("images/train/on holiday.png")
    Path("list.txt").write_text("\non holiday.png\n2.png (44,52,3)\n")
    of_folder, of_list = checked(*FILES), checked(*FILES, "datasets.train.meta_info=list.txt")
    names = [[Path(path).name for path in images.paths] for images in (of_folder, of_list)]
    assert names == [["1.png", "2.png", "on holiday.png"], ["on holiday.png", "2.png"]]
    assert of_list[0]["gt"].shape == (3, 400, 400) and of_list[0]["gt_path"] == of_folder[2]["gt_path"]


@pytest.mark.usefixtures("workplace")
def test_every_random_choice_of_the_data_set_is_the_draws() -> None:
    first, again = (Draws(checked(), seed=3) for _ in range(2))
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = first[4]
    assert again[9]["draw"] == 9
    found = again[4]
    for key in ("gt", "kernel1", "kernel2", "sinc_kernel"):
        assert torch.equal(found[key], expected[key])
        assert key == "sinc_kernel" or not torch.equal(found[key], again[5][key])


@pytest.mark.usefixtures("workplace")
def test_a_plugins_data_set_of_that_name_is_the_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Theirs(RealESRGANDataset):  # type: ignore[misc]
        pass

    assert type(checked().dataset) is RealESRGANDataset
    monkeypatch.setitem(DATASET_REGISTRY._obj_map, "RealESRGANDataset", Theirs)
    assert type(checked().dataset) is Theirs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["datasets.train.dataroot_gt=nowhere.lmdb"], "nowhere.lmdb does not exist; make it with `srflow prepare`"),
        (["datasets.train.dataroot_gt=images"], "images is not an LMDB; make one with `srflow prepare`"),
        ([*FILES, "datasets.train.dataroot_gt=."], "datasets.train.dataroot_gt: . has no images"),
        ([*FILES, "datasets.train.meta_info=no.txt"], "datasets.train.meta_info: no.txt cannot be read"),
        (["datasets.train.batch_size_per_gpu=31"], "30 images do not fill a batch of 31"),
        (["gt_size=20"], "gt_size: 20 must be a multiple of 8"),
    ],
)
def test_images_that_are_not_there_are_named(
    changes: list[str], message: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("it.yml").write_text(yaml.safe_dump(option_file()))
    before = sorted(workplace.iterdir())
    with pytest.raises(SystemExit) as stop:
        basicsr_command(["train", "-opt", "it.yml", "--force_yml", *changes])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and message in line and sorted(workplace.iterdir()) == before


SHARE = """
import os, sys, torch
from srflow_plugin.training.distributed import gather, leave
from srflow_plugin.training.pipelines import Training
from srflow_plugin.training.setup import load_run
from srflow_plugin.training.stop import StopRequest
run = load_run("it.yml", is_train=True, launcher="pytorch" if "RANK" in os.environ else "none", force=sys.argv[2:])
training = Training(run, StopRequest())
made = {}
for data in training.batches():
    draws = data["draw"].tolist()
    training.step(data)
    made.update(zip(draws, zip(training.model.gt, training.model.lq)))
made = {draw: pair for share in gather(made) for draw, pair in share.items()}
if run.opt["rank"] == 0:
    torch.save({"made": made, "weights": training.model.get_bare_model(training.model.net_g).state_dict()}, sys.argv[1])
del training
leave()
"""


@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
def test_two_processes_make_the_images_of_one_and_take_its_steps() -> None:
    opt = option_file(val=None)
    opt["train"].update(total_iter=3, optim_g={"type": "SGD", "lr": 1e-3})  # which rounding does not turn round
    Path("it.yml").write_text(yaml.safe_dump(opt))
    Path("share.py").write_text(SHARE)
    run(sys.executable, "share.py", "one.pt", "name=one")
    torchrun("share.py", "two.pt", "name=two", "datasets.train.batch_size_per_gpu=1")
    one, two = (torch.load(name, weights_only=True) for name in ("one.pt", "two.pt"))
    assert one["made"].keys() == two["made"].keys() == set(range(6))
    for draw, pair in one["made"].items():
        assert all(torch.equal(*images) for images in zip(pair, two["made"][draw], strict=True)), draw
    for key, value in one["weights"].items():
        assert (value.double() - two["weights"][key].double()).abs().max() < 1e-6, key


@pytest.mark.usefixtures("workplace")
def test_a_training_goes_on_as_if_it_had_not_stopped() -> None:
    Path("it.yml").write_text(yaml.safe_dump(option_file(val=None)))
    command = ["train", "-opt", "it.yml", "--force_yml", "logger:use_tb_logger=false"]
    assert basicsr_command([*command, "name=whole", "train:total_iter=4"]) == 0
    assert basicsr_command([*command, "name=part"]) == 0
    assert basicsr_command([*command, "name=part", "train:total_iter=4", "--auto_resume"]) == 0
    assert_same_networks("whole", "part")
