"""Validation of SRFlow: every image at every temperature, measured, drawn, shared among all processes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from torch.utils.data import DataLoader, Subset

from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.flow import Context
from srflow_plugin.images.files import write_image
from srflow_plugin.images.pictures import comparison_grid
from srflow_plugin.images.resize import bicubic_upscale
from srflow_plugin.images.tensors import to_bgr, to_pixels
from srflow_plugin.metrics.perceptual import forget_references
from srflow_plugin.metrics.samples import Samples, is_of_network
from srflow_plugin.metrics.variants import make_val_variants
from srflow_plugin.options.schema import SRFlowVal, read
from srflow_plugin.progress import with_progress
from srflow_plugin.sampling.draw import draw
from srflow_plugin.sampling.temperature import LEARNED, Temperature, is_number, is_random, label
from srflow_plugin.training.distributed import gather_work, own_share
from srflow_plugin.training.log import has_boards

GRIDS_PER_DATASET = 4  # on boards; on disk every image has one
SAMPLES_PER_GRID = 3


class MeasuredImage(NamedTuple):
    """One image of a validation, and what was found out about it."""

    number: int  # in its data set
    name: str
    values: dict[str, float]  # metrics and counts
    grid: np.ndarray | None


class SRFlowValidation(SRModel):
    """SRModel that validates by samples: at several temperatures, with bicubic upscaling beside them.

    Attributes:
        output: images drawn last, (num_samples * B, 3, H, W).
        exploded: number of them that exploded as they were drawn.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        self.val_options = read(SRFlowVal, opt.get("val"))
        self.val_variants = make_val_variants(
            self.val_options.temperatures, self.val_options.bicubic, self.val_options.metrics or {}
        )
        self.features: list[Context] | None = None
        self.exploded = 0
        self.seed = self.val_options.seed  # of the image fed last
        if opt.get("val"):  # BasicSR logs the metrics that stand there
            metrics = dict(item for variant in self.val_variants for item in variant.metrics.items())
            opt = {**opt, "val": {**opt["val"], "metrics": metrics}}
        super().__init__(opt)

    def feed_data(self, data: dict[str, Any]) -> None:
        super().feed_data(data)
        self.features = None  # of this image, once they are needed
        self.files = list(data.get("gt_path", data.get("lq_path", [])))
        if "gt" not in data and hasattr(self, "gt"):
            del self.gt  # the one of the image before

    def test(self, temperature: Temperature | None = None) -> None:
        """Sample ``self.lq``; the temperature is the option file's first one unless given.

        At temperature 0, and of the learned prior, there is one sample, since all are equal.
        """
        if temperature is None:
            temperature = self.val_options.temperatures[0]
        net = self.val_network()
        was_training = net.training
        net.eval()
        samples = draw(
            net,
            self.lq,
            temperature,
            self.val_options.num_samples if is_random(temperature) else 1,
            self.seed,
            tile=self.val_options.tile,
            resample=self.val_options.resample,
            features=self._val_features(),
            adaptive=self.val_options.adaptive,
        )
        self.output, self.exploded = samples.images.flatten(0, 1), samples.exploded
        net.train(was_training)

    def nondist_validation(
        self, dataloader: DataLoader[Any], current_iter: int | str, tb_logger: Any, save_img: bool
    ) -> None:
        """Sample every image at every temperature; log metrics, save images and grids, named as SRModel does.

        Each rank works on its share of the images; the metrics are means over all, the same for any number of ranks.
        """
        dataset_name = dataloader.dataset.opt["name"]  # type: ignore[attr-defined]
        if self.is_train:  # BasicSR's loop has counted past the end when it validates for the last time
            current_iter = min(int(current_iter), self.opt["train"]["total_iter"])
        try:
            shares = gather_work(lambda: list(self._measure_share(dataloader, current_iter, save_img)))
        finally:
            self._forget_image()
        images = sorted((image for share in shares for image in share), key=lambda image: image.number)
        totals: defaultdict[str, float] = defaultdict(float)
        for image in images:
            for key, value in image.values.items():
                totals[key] += value
        if tb_logger:
            _write_board(tb_logger, dataset_name, images, totals, current_iter)
        if totals["exploded"]:
            get_root_logger().warning(
                f"{dataset_name}: {totals['exploded']:g} of {totals['samples']:g} samples exploded, "
                f"{totals['nonfinite']:g} values are not finite. Lower val.temperature, or set val.resample."
            )
        if self.opt["val"].get("metrics"):
            self.metric_results = {name: totals[name] / len(images) for name in self.opt["val"]["metrics"]}
            if self.is_train:  # a test has no other iteration to be better than
                self._initialize_best_metric_results(dataset_name)
                for metric, mean in self.metric_results.items():
                    self._update_best_metric_result(dataset_name, metric, mean, current_iter)
            self._log_validation_metric_values(current_iter, dataset_name, tb_logger)

    dist_validation = nondist_validation

    def val_network(self) -> SRFlowNet:
        """Network that is validated: the mean over iterations, if there is one."""
        net: SRFlowNet = self.net_g_ema if hasattr(self, "net_g_ema") else self.get_bare_model(self.net_g)
        return net

    def _measure_share(
        self, dataloader: DataLoader[Any], current_iter: int | str, save_img: bool
    ) -> Iterator[MeasuredImage]:
        """Measure this rank's images of a validation."""
        dataset: Any = dataloader.dataset
        indices = own_share(len(dataset))
        items = iter(DataLoader(Subset(dataset, indices), batch_size=1))
        for index in with_progress(indices, "image", disable=not self.val_options.pbar or self.opt["rank"] != 0):
            data = next(items)
            name = Path(data["lq_path"][0]).stem
            for line in data.get("note", [""])[0].splitlines():
                get_root_logger().info(line)
            self.feed_data(data)
            self.seed = self.val_options.seed + index
            pictures, values = self._measure()
            grid_to_board = self.is_train and has_boards(self.opt) and index < GRIDS_PER_DATASET
            grid = self._grid(pictures) if save_img or grid_to_board else None
            if save_img:
                start = self._picture_path(dataset.opt["name"], name, current_iter)
                with self._going_on(f"The pictures of {name}"):
                    self._save_pictures(start, pictures, grid)
            yield MeasuredImage(index, name, values, grid if grid_to_board else None)

    def _forget_image(self) -> None:
        """Give the memory back that the samples and features of a validation's last image take."""
        self.features = None
        forget_references()
        for name in ("output", "gt"):
            if hasattr(self, name):
                delattr(self, name)

    def _measure(self) -> tuple[dict[str, list[np.ndarray]], dict[str, float]]:
        """Super-resolve the image fed last in every way: pictures by the ways' suffixes, metrics and counts."""
        gt, lq = self._gt_picture(), to_pixels(self.lq[0])
        bgr_gt, bgr_lq = None if gt is None else to_bgr(gt), to_bgr(lq)
        needs_code = gt is not None and any(map(is_of_network, self.opt["val"]["metrics"].values()))
        code_length = self._code_length() if needs_code else None
        pictures: dict[str, list[np.ndarray]] = {}
        values: defaultdict[str, float] = defaultdict(float)
        for variant in self.val_variants:
            if variant.temperature is None:
                self.output = bicubic_upscale(self.lq, self.val_network().scale)
            else:
                self.test(variant.temperature)
                values["samples"] += len(self.output)
                values["exploded"] += self.exploded
                values["nonfinite"] += self.output.numel() - int(self.output.isfinite().sum())
            pictures[variant.suffix] = [to_pixels(image) for image in self.output]
            samples = Samples([to_bgr(picture) for picture in pictures[variant.suffix]], bgr_gt, bgr_lq, code_length)
            for metric, metric_opt in variant.metrics.items():
                if metric not in self.opt["val"]["metrics"]:  # of a data set without ground truth
                    continue
                values[metric] = samples.measure(metric_opt)
        return pictures, values

    def _gt_picture(self) -> np.ndarray | None:
        return to_pixels(self.gt[0]) if hasattr(self, "gt") else None

    def _code_length(self) -> float:
        """Bits per dimension of the ground truth fed last, of 8 bits."""
        return float(self.val_network().code_length(self.gt, self.lq, self.seed, self._val_features()))

    def _val_features(self) -> list[Context] | None:
        """Encode the image fed last, once; not where it is worked on in tiles."""
        if self.features is None and self.val_options.tile is None:
            with torch.no_grad():
                self.features = self.val_network().features(self.lq)
        return self.features

    def _grid(self, pictures: dict[str, list[np.ndarray]]) -> np.ndarray:
        """Put the image fed last in a row: LR, bicubic, tau = 0, learned, samples of the highest tau, ground truth."""
        samples = {variant.temperature: pictures[variant.suffix] for variant in self.val_variants}
        if None not in samples:
            samples[None] = [to_pixels(bicubic_upscale(self.lq, self.val_network().scale)[0])]
        if 0 not in samples:
            self.test(0)
            samples[0] = [to_pixels(self.output[0])]
        columns = [("LR", to_pixels(self.lq[0])), ("bicubic", samples[None][0])]
        highest = max(filter(is_number, self.val_options.temperatures), default=0)
        shown = dict.fromkeys([0, *({LEARNED} & samples.keys()), highest])
        for temperature in shown:
            columns += [(f"tau {label(temperature)}", image) for image in samples[temperature][:SAMPLES_PER_GRID]]
        gt = self._gt_picture()
        if gt is not None:
            columns.append(("GT", gt))
        return comparison_grid(columns, columns[1][1].shape[0])

    def _save_pictures(self, start: Path, pictures: dict[str, list[np.ndarray]], grid: np.ndarray | None) -> None:
        """Write pictures to files whose names begin with ``start``."""
        start.parent.mkdir(parents=True, exist_ok=True)
        for suffix, samples in pictures.items():
            for number, picture in enumerate(samples):
                sample_suffix = f"_{number}" if len(samples) > 1 else ""
                write_image(start.with_name(f"{start.name}{suffix}{sample_suffix}.png"), picture)
        if grid is not None:
            write_image(start.with_name(f"{start.name}_grid.png"), grid)

    @contextmanager
    def _going_on(self, what: str) -> Iterator[None]:
        """Let a training go on, in the block, on a disk that is full or gone for a while; the log says what is lost."""
        try:
            yield
        except OSError as error:
            if not self.is_train:
                raise
            get_root_logger().error(f"{what} could not be written: {error.strerror or error}. Training goes on.")

    def _picture_path(self, dataset_name: str, name: str, current_iter: int | str) -> Path:
        folder = Path(self.opt["path"]["visualization"])
        if self.opt["is_train"]:
            return folder / name / f"{name}_{current_iter}"
        return folder / dataset_name / f"{name}_{self.val_options.suffix or self.opt['name']}"


def _write_board(
    tb_logger: Any, dataset_name: str, images: list[MeasuredImage], totals: dict[str, float], current_iter: int | str
) -> None:
    """Show counts and grids on the boards."""
    for image in images:
        if image.grid is not None:
            tb_logger.add_image(f"{dataset_name}/{image.name}", image.grid, current_iter, dataformats="HWC")
    for count in ("nonfinite", "exploded"):
        tb_logger.add_scalar(f"metrics/{dataset_name}/{count}", totals[count], current_iter)
