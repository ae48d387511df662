"""SRFlow in mmengine: model, data, metrics and a hook for its Runner, in its registries once this module is imported.

A config has ``custom_imports = dict(imports=["srflow_plugin.integrations.mmengine"])``. Its checkpoints are read by
:func:`srflow_plugin.load_network`, and by mmengine itself: PyTorch 2.6 and newer refuse mmengine's log beside the
weights, which this module lets it read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from mmengine import dist
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseDataPreprocessor, BaseModel, is_model_wrapper
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.runner import CheckpointLoader, checkpoint
from torch import Tensor
from torch.utils.data import Dataset

from srflow_plugin.applications.upscale import RESAMPLE
from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.checkpoints.load import load_network
from srflow_plugin.errors import UserError
from srflow_plugin.flow import full_precision
from srflow_plugin.images.tensors import to_bgr, to_pixels
from srflow_plugin.sampling.temperature import Temperature
from srflow_plugin.sampling.tiling import Tile
from srflow_plugin.training.distributed import mean_over_ranks

MODELS.register_module(module=SRFlowNet)
RANGES = {torch.uint8: 255, torch.uint16: 65535}  # of whole numbers


@MODELS.register_module()
class ImagePairs(BaseDataPreprocessor):
    """Preprocessor of batches that have ``lq`` and, for all but predictions, ``gt``: RGB, (3, H, W) each.

    Whole numbers of 8 or 16 bits become floats in [0, 1], and floats must lie there. What else a batch has goes along.
    """

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """Make ``inputs`` (B, 3, h, w), and ``data_samples``, a dictionary with ``gt`` (B, 3, scale*h, scale*w)."""
        samples: dict[str, Any] = dict(data)
        if "lq" not in samples:
            raise UserError(f"a batch needs lq, and gt for a loss; it has {', '.join(samples) or 'nothing'}")
        images = {name: _as_floats(samples.pop(name), name) for name in ("lq", "gt") if name in samples}
        batch: dict[str, Any] = self.cast_data({"inputs": images.pop("lq"), "data_samples": samples | images})
        return batch


def _as_floats(images: Tensor | Sequence[Tensor], name: str) -> Tensor:
    """Make one float tensor in [0, 1] of a batch, whichever way it was collated."""
    batch = images if isinstance(images, Tensor) else torch.stack(list(images))
    if batch.dtype in RANGES:
        return batch.float() / RANGES[batch.dtype]
    if not batch.is_floating_point() or batch.min() < 0 or batch.max() > 1:
        raise UserError(f"{name} must be uint8, uint16, or float in 0 ... 1, not {batch.dtype} up to {batch.max():g}")
    return batch.float()


@MODELS.register_module()
class SRFlow(BaseModel):
    """SRFlow with its negative log-likelihood as the loss.

    Args:
        network: a config of SRFlowNet; or a checkpoint to begin with, by file or by name ("srflow_x4").
        temperature, seed, tile: of predictions, see :meth:`SRFlowNet.sample`.
        data_preprocessor: by default :class:`ImagePairs`.
        init_cfg: mmengine's.
    """

    def __init__(
        self,
        network: Mapping[str, Any] | str,
        temperature: Temperature = 0.0,
        seed: int = 0,
        tile: Tile = None,
        data_preprocessor: Mapping[str, Any] | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor or {"type": "ImagePairs"}, init_cfg)
        self.net: SRFlowNet = load_network(network) if isinstance(network, str) else MODELS.build(network)
        self.temperature, self.seed, self.tile = temperature, seed, tile
        self.is_fitted = False  # asked once: each of the network's flags is a tensor, on a GPU a wait for it

    def forward(
        self,
        inputs: Tensor,
        data_samples: Mapping[str, Any] | None = None,
        mode: Literal["loss", "predict", "tensor"] = "tensor",
    ) -> Any:
        """Work on LR images ``inputs`` (B, 3, h, w).

        "loss": the NLL in bits per dimension as ``loss_nll``, and its summands. "predict": for each image a dictionary
        with ``sr``, (3, scale*h, scale*w) in [0, 1], and what ``data_samples`` has of it. "tensor": the tau = 0 images,
        not clamped.
        """
        samples = data_samples or {}
        if mode == "loss":
            if "gt" not in samples:
                raise UserError(f"a batch needs gt for a loss; it has lq, {', '.join(samples)}")
            return self.losses(samples["gt"], inputs)
        if mode == "predict":
            return self.predict(inputs, samples)
        return self.net.sample(inputs, 0.0, tile=self.tile)[0]

    def losses(self, gt: Tensor, lq: Tensor) -> dict[str, Tensor]:
        """Compute the NLL; before the first step, fit the ActNorms to the batch, that of all ranks together."""
        if not self.is_fitted and not self.net.initialized:
            self.net.initialize(gt, lq, mean_over_ranks)
        self.is_fitted = True
        terms = self.net(gt, lq, terms=True)
        return {"loss_nll": terms.nll.mean(), "prior": terms.prior.mean(), "logdet": terms.logdet.mean()}

    @torch.no_grad()
    def predict(self, lq: Tensor, samples: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Draw one image for each LR image, as ``srflow upscale`` does."""
        images = self.net.sample(lq, self.temperature, seed=self.seed, tile=self.tile, resample=RESAMPLE)[0]
        return [
            {"sr": image.clamp(0, 1), "lq": lq[number], **{name: value[number] for name, value in samples.items()}}
            for number, image in enumerate(images)
        ]

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """Take a step, whose convolutions stay in float32 on GPUs, as the network's own do."""
        with nullcontext() if self.net.precision == "tf32" else full_precision():
            return super().train_step(data, optim_wrapper)  # type: ignore[no-any-return]


@HOOKS.register_module()
class FreezeEncoder(Hook):
    """Freezes the encoder of :class:`SRFlow` for the first iterations, before and after a resume.

    With several processes it needs ``find_unused_parameters = True`` in the config.

    Args:
        iters: number of those iterations.
    """

    def __init__(self, iters: int) -> None:
        self.iters = iters

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model.net.encoder.requires_grad_(runner.iter >= self.iters)


@DATASETS.register_module()
class SRPairs(Dataset[dict[str, Any]]):
    """BasicSR's PairedImageDataset for mmengine: ``lq`` and ``gt``, float RGB (3, H, W) in [0, 1], and their paths.

    An image that cannot be used ends with a line that names it.

    Args:
        phase: "train", which crops, flips and turns; or "val".
        options: those of a section ``datasets.<phase>`` of an option file, ``scale`` among them.
    """

    metainfo: dict[str, Any] = {}  # which mmengine asks for

    def __init__(self, phase: Literal["train", "val"], **options: Any) -> None:
        from srflow_plugin.data.build import checked_images
        from srflow_plugin.data.embedded import prepare_embedded

        section = {"name": phase, "type": "PairedImageDataset", "phase": phase, **options}
        if section.get("prepare") == "embedded":
            if dist.is_main_process():
                lmdbs = Path(section["dataroot_gt"]), Path(section["dataroot_lq"])
                prepare_embedded(phase, *lmdbs, section["scale"])
            dist.barrier()
        self.images = checked_images(section, f"{phase}_dataloader.dataset")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.images[index]
        return {key: sample[key] for key in ("lq", "gt", "lq_path", "gt_path") if key in sample}


@METRICS.register_module()
class SRMetrics(BaseMetric):
    """This project's and BasicSR's metrics, as ``val.metrics`` of an option file has them, of what SRFlow predicts.

    Args:
        sections: of metrics, by name, such as ``dict(psnr=dict(type="calculate_psnr", crop_border=4))``.
        options: those of mmengine's BaseMetric.
    """

    default_prefix = "sr"

    def __init__(self, sections: Mapping[str, Mapping[str, Any]], **options: Any) -> None:
        super().__init__(**options)
        self.sections = {name: dict(section) for name, section in sections.items()}

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Measure a batch of predictions."""
        from srflow_plugin.metrics.samples import Samples

        for one in data_samples:
            if "gt" not in one:
                raise UserError("SRMetrics compares with gt, which the batch has not")
            sr, gt, lq = (to_bgr(to_pixels(one[name])) for name in ("sr", "gt", "lq"))
            measured = Samples([sr], gt, lq)
            self.results.append({name: measured.measure(section) for name, section in self.sections.items()})

    def compute_metrics(self, results: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Average over all images."""
        values = defaultdict(list)
        for one in results:
            for name, value in one.items():
                values[name].append(value)
        return {name: float(np.mean(several)) for name, several in values.items()}


def _statistic(owner: Any, name: str) -> Callable[..., Any]:
    """Take the place of ``getattr`` in mmengine's checkpoints, where it names how a log is summed up."""
    if owner is not HistoryBuffer or name not in ("min", "max", "current", "mean"):
        raise UserError(f"the checkpoint asks for {name!r} of {owner!r}, which is not loaded because it could run code")
    return getattr(HistoryBuffer, name)  # type: ignore[no-any-return]


def readable() -> list[Any]:
    """List what mmengine writes beside the weights: its log, of numpy's arrays."""
    dtypes = {type(np.dtype(kind)) for kind in ("float64", "float32", "int64")}
    made_by = {"_reconstruct": np.zeros(0).__reduce__()[0], "scalar": np.float64(0).__reduce__()[0]}
    arrays = [  # as numpy 1 and 2 name them
        (make, f"numpy.{core}.multiarray.{name}") for core in ("core", "_core") for name, make in made_by.items()
    ]
    return [HistoryBuffer, (_statistic, "builtins.getattr"), *arrays, np.ndarray, np.dtype, *dtypes]


@CheckpointLoader.register_scheme(prefixes="", force=True)  # type: ignore[untyped-decorator]
def load_from_local(filename: str, map_location: Any) -> Any:
    """Load a file as mmengine does, with its log, without running code of the file; PyTorch would refuse it."""
    with torch.serialization.safe_globals(readable()):
        return checkpoint.load_from_local(filename, map_location)
