"""Training and testing of any BasicSR model: BasicSR's two pipelines for runs that are stopped, moved and resumed.

Log lines, folders and the order of things are BasicSR's (basicsr/train.py, basicsr/test.py), and so are the pieces.
What differs: all that is random is drawn from the seed, the iteration and the rank, so that a resumed run is the same
run; checkpoints are whole or absent; a signal to stop is answered with a checkpoint.
"""

from __future__ import annotations

import datetime
import logging
import math
import signal
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from basicsr.data import build_dataset
from basicsr.models import build_model
from basicsr.models.base_model import BaseModel
from basicsr.train import init_tb_loggers
from basicsr.utils import (
    AvgTimer,
    MessageLogger,
    get_env_info,
    get_root_logger,
    get_time_str,
    make_exp_dirs,
    mkdir_and_rename,
)
from basicsr.utils.options import copy_opt_file, dict2str
from torch.utils.data import DataLoader, Dataset

from srflow_plugin.data.loading import CheckedImages, Draws, global_batch_size, seed_everything, training_batches
from srflow_plugin.distributed import any_rank
from srflow_plugin.errors import UserError
from srflow_plugin.training_state import Checkpoints, read_state, resume

Options = dict[str, Any]
NOTES_IN_LOG = 20  # of images that were skipped or converted; all are counted


def train_pipeline(opt: Options, opt_file: str) -> int:
    """Train as an option file says; returns the exit code: 130 after SIGINT, else 0."""
    torch.backends.cudnn.benchmark = True
    state = read_state(Path(opt["path"]["resume_state"])) if opt["path"].get("resume_state") else None
    _make_folders(opt, opt_file, is_new=state is None)
    logger = _start_log(opt, "train")
    tb_logger = init_tb_loggers(opt)

    if state:  # a seed that was drawn, too
        opt["manual_seed"] = state.get("manual_seed", opt["manual_seed"])
    train_set = CheckedImages(_build(build_dataset, opt["datasets"]["train"], "datasets.train"))
    stop = StopRequest()
    val_loaders = [_val_loader(opt, phase, stop) for phase in opt["datasets"] if phase.split("_")[0] == "val"]
    model = _build(build_model, opt, "the model")
    validation = Validation(model, val_loaders, tb_logger, opt.get("val"))
    checkpoints = Checkpoints(model, opt["logger"].get("keep_last"), opt["logger"].get("keep_best"))

    current_iter = state["iter"] if state else 0
    total_iter = int(opt["train"]["total_iter"])
    batch_size = global_batch_size(opt)
    progress = {"samples": current_iter * batch_size, "manual_seed": opt["manual_seed"]}
    if state:
        resume(model, state, Path(opt["path"]["resume_state"]))
        progress["samples"] = state.get("samples", progress["samples"])
    model.progress = progress  # for the checkpoints
    dataset_opt = opt["datasets"]["train"]
    images_per_epoch = len(train_set) * dataset_opt.get("dataset_enlarge_ratio", 1)
    logger.info(
        "Training statistics:"
        f"\n\tNumber of train images: {len(train_set)}"
        f"\n\tDataset enlarge ratio: {dataset_opt.get('dataset_enlarge_ratio', 1)}"
        f"\n\tBatch size per gpu: {dataset_opt['batch_size_per_gpu']}"
        f"\n\tWorld size (gpu number): {opt['world_size']}"
        f"\n\tRequire iter number per epoch: {math.ceil(images_per_epoch / batch_size)}"
        f"\n\tTotal epochs: {math.ceil(total_iter * batch_size / images_per_epoch)}; iters: {total_iter}."
    )
    epoch = progress["samples"] // images_per_epoch
    if state:
        logger.info(f"Resuming training from epoch: {epoch}, iter: {current_iter}.")
    logger.info(f"Start training from epoch: {epoch}, iter: {current_iter}")

    draws = Draws(train_set, opt["manual_seed"], dataset_opt.get("skip_bad_images", False))
    batches = training_batches(draws, opt, progress["samples"], total_iter - current_iter)
    msg_logger = MessageLogger(opt, current_iter, tb_logger)
    notes = Notes(logger)
    data_timer, iter_timer, start_time = AvgTimer(), AvgTimer(), time.time()
    with stop:
        try:
            if state and validation.run_if_due(current_iter):  # which was to follow the checkpoint
                checkpoints.save_if_best(current_iter)
            for data in batches:
                data_timer.record()
                current_iter += 1
                notes.add(data.pop("note", []))
                seed_everything(opt["manual_seed"], current_iter, opt["rank"])
                model.update_learning_rate(current_iter, warmup_iter=opt["train"].get("warmup_iter", -1))
                model.feed_data(data)
                model.optimize_parameters(current_iter)
                progress["samples"] += batch_size
                epoch = progress["samples"] // images_per_epoch
                iter_timer.record()
                if current_iter == 1:
                    msg_logger.reset_start_time()  # a better estimate without the first iteration
                if current_iter % opt["logger"]["print_freq"] == 0:
                    times = {"time": iter_timer.get_avg_time(), "data_time": data_timer.get_avg_time()}
                    lrs = model.get_current_learning_rate()
                    log = {"epoch": epoch, "iter": current_iter, "lrs": lrs, **times, **model.get_current_log()}
                    msg_logger(log)
                if current_iter % opt["logger"]["save_checkpoint_freq"] == 0:
                    logger.info("Saving models and training states.")
                    checkpoints.save(epoch, current_iter)
                if any_rank(stop.requested):
                    raise StopRequested
                if validation.run_if_due(current_iter):
                    checkpoints.save_if_best(current_iter)
                data_timer.start()
                iter_timer.start()
            logger.info(f"End of training. Time consumed: {datetime.timedelta(seconds=int(time.time() - start_time))}")
            logger.info("Save the latest model.")
            checkpoints.save(-1, -1, must=True)
            validation.run_at_end(current_iter)
            checkpoints.save_if_best(current_iter)
        except StopRequested:
            checkpoints.save(epoch, current_iter, must=True)
            logger.warning(f"Stopped by {stop} after iteration {current_iter}, which is saved; --auto_resume goes on.")
    notes.summarise()
    if tb_logger:
        tb_logger.close()
    return stop.exit_code


def test_pipeline(opt: Options) -> int:
    """Test as an option file says, the images shared among all processes; returns the exit code."""
    torch.backends.cudnn.benchmark = True
    _make_folders(opt, None, is_new=True)
    logger = _start_log(opt, "test")
    stop = StopRequest()
    loaders = [_val_loader(opt, phase, stop) for phase in sorted(opt["datasets"])]
    model = _build(build_model, opt, "the model")
    with stop:
        try:
            for loader in loaders:
                logger.info(f"Testing {loader.dataset.opt['name']}...")  # type: ignore[attr-defined]
                model.validation(loader, current_iter=opt["name"], tb_logger=None, save_img=opt["val"]["save_img"])
                any_rank(False)  # a model of BasicSR's own validates on rank 0 only
        except StopRequested:
            logger.warning(f"Stopped by {stop}.")
    return stop.exit_code


class StopRequested(Exception):  # noqa: N818  (not an error)
    """Raised between two images or iterations."""


class StopRequest:
    """SIGTERM (pre-emption) or SIGINT (Ctrl-C), noted in the block; the second of its kind acts at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        signal.signal(number, self._previous[self.signal])

    def __str__(self) -> str:
        return self.signal.name if self.signal else "another process"

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        return 130 if self.signal is signal.SIGINT else 0


class Validation:
    """Validates on all data sets, once for an iteration."""

    def __init__(self, model: BaseModel, loaders: list[DataLoader], tb_logger: Any, val_opt: Options | None) -> None:
        self.model = model
        self.loaders = loaders
        self.tb_logger = tb_logger
        self.val_opt = val_opt
        self.last_iter = 0

    def run_if_due(self, current_iter: int) -> bool:
        due = self.val_opt is not None and current_iter % self.val_opt["val_freq"] == 0
        if due:
            self.run_at_end(current_iter)
        return due

    def run_at_end(self, current_iter: int) -> None:
        """Validate, unless this iteration has been."""
        if self.val_opt is None or current_iter == self.last_iter:
            return
        for loader in self.loaders:
            self.model.validation(loader, current_iter, self.tb_logger, self.val_opt["save_img"])
            any_rank(False)  # a model of BasicSR's own validates on rank 0 only
        self.last_iter = current_iter


class Notes:
    """What is worth knowing about images that were read: each once in the log, all counted."""

    def __init__(self, logger: logging.Logger) -> None:
        self.logger = logger
        self.counts: Counter[str] = Counter()

    def add(self, notes: list[str]) -> None:
        for note in filter(None, notes):
            if note not in self.counts and len(self.counts) < NOTES_IN_LOG:
                self.logger.warning(note)
            self.counts[note] += 1

    def summarise(self) -> None:
        if self.counts:
            self.logger.warning(
                f"{self.counts.total()} images were skipped or converted, {len(self.counts)} different."
            )


class _StopBetweenImages(Dataset[Any]):
    """A data set for validation whose loop ends with StopRequested when that is asked for."""

    def __init__(self, images: CheckedImages, stop: StopRequest) -> None:
        self.images = images
        self.opt = images.opt
        self.stop = stop

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        if self.stop.requested:
            raise StopRequested
        return self.images[index]


def _val_loader(opt: Options, phase: str, stop: StopRequest) -> DataLoader:
    dataset_opt = opt["datasets"][phase]
    images = CheckedImages(_build(build_dataset, dataset_opt, f"datasets.{phase}"))
    get_root_logger().info(f"Number of {dataset_opt['phase']} images/folders in {dataset_opt['name']}: {len(images)}")
    return DataLoader(_StopBetweenImages(images, stop), batch_size=1)


def _build(build: Any, opt: Options, what: str) -> Any:
    """Build something of BasicSR or a plugin; what its class says about its options becomes one line."""
    try:
        return build(opt)
    except UserError:
        raise
    except (AssertionError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{what} cannot be built: {text:.300}") from error


def _make_folders(opt: Options, opt_file: str | None, is_new: bool) -> None:
    """The experiment's folders, by rank 0; an older experiment of that name is renamed unless it goes on."""
    try:
        if opt["rank"] == 0 and is_new:
            make_exp_dirs(opt)
            if opt["is_train"] and opt["logger"].get("use_tb_logger") and "debug" not in opt["name"]:
                mkdir_and_rename(str(Path(opt["root_path"]) / "tb_logger" / opt["name"]))
        elif opt["rank"] == 0:
            for key in ("models", "training_states", "visualization"):
                Path(opt["path"][key]).mkdir(parents=True, exist_ok=True)
        if opt["rank"] == 0 and opt_file:
            copy_opt_file(opt_file, opt["path"]["experiments_root"])
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; choose a working folder that can be written") from None
    any_rank(False)  # nobody goes on before the folders are there


def _start_log(opt: Options, what: str) -> logging.Logger:
    log_file = str(Path(opt["path"]["log"]) / f"{what}_{opt['name']}_{get_time_str()}.log")
    logger = get_root_logger(logger_name="basicsr", log_level=logging.INFO, log_file=log_file)
    logger.info(get_env_info())
    logger.info(dict2str(opt))
    return logger
