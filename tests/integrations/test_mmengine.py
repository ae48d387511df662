"""mmengine's Runner trains, resumes and validates SRFlow; what it writes is read by everything else."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage.data import chelsea

pytest.importorskip("mmengine", reason="mmengine comes with the extra train")
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS
from mmengine.runner import Runner

from srflow_plugin import load_network, upscale
from srflow_plugin.archs.settings import decode_setting
from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.errors import UserError
from srflow_plugin.images.tensors import to_pixels, to_tensor
from srflow_plugin.integrations.mmengine import ImagePairs, SRFlow, SRMetrics, _statistic
from srflow_plugin.metrics.samples import measure
from srflow_plugin.options.files import load_options
from tests.helpers import ROOT, TINY

EXAMPLE = ROOT / "integrations/mmengine/srflow_x4_quick.py"
PSNR = {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True}


class Record(Hook):
    """What each iteration saw and said, and how the encoder was after it."""

    def __init__(self) -> None:
        self.iterations: list[int] = []
        self.batches: list[dict[str, Any]] = []
        self.losses: list[float] = []
        self.encoders: list[torch.Tensor] = []

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.iterations.append(batch_idx)
        self.batches.append(data_batch)
        self.losses.append(outputs["loss_nll"].detach().item())
        self.encoders.append(runner.model.net.encoder.conv_first.weight.detach().clone())


def tiny_config(max_iters: int, **changes: Any) -> Any:
    """Make the example as small as tiny.yml, on its data, and without noise."""
    cfg = Config.fromfile(EXAMPLE)
    network = {**load_options(TINY)["network_g"], "noise": "none", "scale_floor": 0.3}
    cfg.merge_from_dict(
        {
            "model.network": {"_delete_": True, **network},
            "train_dataloader.num_workers": 0,
            "train_dataloader.persistent_workers": False,
            "train_dataloader.batch_size": 2,
            "train_dataloader.dataset.gt_size": 16,
            "train_cfg.max_iters": max_iters,
            "train_cfg.val_interval": 2,
            "default_hooks.checkpoint.interval": 2,
            "work_dir": "work",
            "log_level": "WARNING",
            **changes,
        }
    )
    for phase in ("train", "val", "test"):
        dataset = cfg[f"{phase}_dataloader"].dataset
        kind = "train" if phase == "train" else "val"
        dataset.pop("prepare")
        dataset.update(dataroot_gt=f"data/{kind}_HR.lmdb", dataroot_lq=f"data/{kind}_LRx4.lmdb")
    return cfg


def run(cfg: Any) -> tuple[Record, dict[str, torch.Tensor]]:
    """Train; return what was recorded, and the weights before the first step."""
    runner, record = Runner.from_cfg(cfg), Record()
    runner.register_hook(record)
    before = {key: value.clone() for key, value in runner.model.net.state_dict().items()}
    runner.train()
    return record, before


def test_runner_trains_what_load_network_reads_and_goes_on(workplace: Path) -> None:
    freeze = [{"type": "FreezeEncoder", "iters": 1}]
    record, before = run(tiny_config(2, custom_hooks=freeze, randomness={"seed": 0}))
    batch = record.batches[0]
    gt, lq = (torch.stack(list(batch[name])) for name in ("gt", "lq"))
    arguments = {key: value for key, value in tiny_config(2).model.network.items() if key != "type"}
    own = SRFlowNet(**arguments)
    own.load_state_dict(before)
    own.initialize(gt, lq)
    assert math.isclose(record.losses[0], float(own(gt, lq).mean()), rel_tol=1e-6)
    assert all(map(math.isfinite, record.losses))
    frozen, trained = record.encoders
    assert torch.equal(frozen, before["encoder.conv_first.weight"]) and not torch.equal(trained, frozen)

    saved = Path("work/iter_2.pth")
    network = load_network(saved)
    assert network.initialized and decode_setting(network.state_dict()["settings.scale_floor"]) == 0.3
    assert torch.equal(network.encoder.conv_first.weight, trained)
    model = SRFlow(str(saved)).eval()
    (prediction,) = model.predict(lq[:1], {})
    own_image = network.sample(lq[:1], 0, resample=0.8)[0, 0].clamp(0, 1)
    assert torch.equal(prediction["sr"], own_image)

    again, loaded = run(tiny_config(4, resume=True, custom_hooks=freeze))
    assert again.iterations == [2, 3]
    assert all(torch.equal(value, loaded[key]) for key, value in before.items())  # the start is a new network's
    assert not torch.equal(again.encoders[0], trained) and torch.dist(again.encoders[0], trained) < 0.1
    assert load_network("work/iter_4.pth").initialized


def test_example_trains_the_network_of_the_option_file() -> None:
    options, cfg = load_options(ROOT / "options/train_SRFlow_x4_quick.yml"), Config.fromfile(EXAMPLE)
    assert dict(cfg.model.network) == options["network_g"]
    train = options["datasets"]["train"]
    dataset = cfg.train_dataloader.dataset
    assert {key: dataset[key] for key in ("gt_size", "use_hflip", "use_rot", "dataroot_gt", "prepare")} == {
        key: train[key] for key in ("gt_size", "use_hflip", "use_rot", "dataroot_gt", "prepare")
    }
    assert cfg.train_dataloader.batch_size == train["batch_size_per_gpu"]
    assert cfg.train_cfg.max_iters == options["train"]["total_iter"]
    assert cfg.optim_wrapper.optimizer.lr == options["train"]["optim_g"]["lr"]
    assert cfg.val_evaluator.sections.to_dict() == options["val"]["metrics"]


def test_a_prediction_is_what_srflow_upscale_draws() -> None:
    image = np.ascontiguousarray(chelsea()[100:118, 100:121])
    model = MODELS.build({"type": "SRFlow", "network": "srflow_x4"}).eval()
    (prediction,) = model.val_step({"lq": [torch.from_numpy(image.transpose(2, 0, 1).copy())]})
    (expected,) = upscale(image, temperature=0)
    assert np.array_equal(to_pixels(prediction["sr"]), expected)
    as_tensor = model(to_tensor(image), mode="tensor")
    assert torch.equal(as_tensor.clamp(0, 1)[0], prediction["sr"])


@pytest.mark.parametrize(
    "image",
    [
        torch.full((3, 2, 2), 51, dtype=torch.uint8),
        torch.full((3, 2, 2), 13107, dtype=torch.uint16),
        torch.full((3, 2, 2), 0.2),
        torch.full((3, 2, 2), 0.2, dtype=torch.float64),
    ],
    ids=lambda image: str(image.dtype),
)
@pytest.mark.parametrize("collate", [list, torch.stack], ids=["list", "tensor"])
def test_images_of_every_range_come_as_floats(image: torch.Tensor, collate: Any) -> None:
    batch = ImagePairs()({"lq": collate([image, image]), "gt": collate([image]), "lq_path": ["a", "b"]})
    lq, samples = batch["inputs"], batch["data_samples"]
    assert lq.dtype == samples["gt"].dtype == torch.float32 and samples["lq_path"] == ["a", "b"]
    assert lq.shape == (2, 3, 2, 2) and torch.allclose(lq, torch.tensor(0.2))


WRONG_BATCHES: dict[str, tuple[dict[str, Any], str]] = {
    "0 ... 255": ({"lq": torch.full((1, 3, 2, 2), 255.0)}, r"lq must be uint8, uint16, or float in 0 ... 1, .* 255"),
    "-1 ... 1": ({"lq": torch.full((1, 3, 2, 2), -1.0)}, "lq must be uint8"),
    "whole numbers": ({"lq": torch.zeros(1, 3, 2, 2, dtype=torch.int64)}, "not torch.int64 up to 0"),
    "mmengine's usual key": ({"inputs": torch.zeros(1, 3, 2, 2)}, "a batch needs lq, and gt for a loss; it has inputs"),
    "nothing": ({}, "it has nothing"),
}


@pytest.mark.parametrize("case", WRONG_BATCHES)
def test_other_batches_are_refused(case: str) -> None:
    batch, text = WRONG_BATCHES[case]
    with pytest.raises(UserError, match=text):
        ImagePairs()(batch)


def test_a_loss_without_ground_truth_is_refused() -> None:
    model = MODELS.build({"type": "SRFlow", "network": load_options(TINY)["network_g"]})
    with pytest.raises(UserError, match="a batch needs gt for a loss; it has lq, name"):
        model(torch.zeros(1, 3, 4, 4), {"name": ["a"]}, mode="loss")


def test_metrics_are_those_of_an_option_file() -> None:
    gt, sr, lq = (to_tensor(image)[0] for image in (chelsea()[:32, :32], chelsea()[1:33, :32], chelsea()[:8, :8]))
    metric = SRMetrics({"psnr": PSNR, "lr": {"type": "calculate_lr_psnr", "scale": 4}})
    metric.process(None, [{"sr": sr, "gt": gt, "lq": lq}, {"sr": gt * 0.9, "gt": gt, "lq": lq}])
    found = metric.evaluate(2)
    of_each = [measure([to_pixels(image)[..., ::-1]], to_pixels(gt)[..., ::-1], None, PSNR) for image in (sr, gt * 0.9)]
    assert found.keys() == {"sr/psnr", "sr/lr"} and math.isclose(found["sr/psnr"], sum(of_each) / 2)
    with pytest.raises(UserError, match="compares with gt"):
        metric.process(None, [{"sr": sr, "lq": lq}])


def test_a_log_names_no_other_code() -> None:
    assert _statistic(HistoryBuffer, "mean") is HistoryBuffer.mean
    for owner, name in ((HistoryBuffer, "__init__"), (str, "mean"), (Path, "mkdir")):
        with pytest.raises(UserError, match="which is not loaded because it could run code"):
            _statistic(owner, name)
