"""Training and testing of any BasicSR model: BasicSR's two pipelines for runs that are stopped, moved and resumed.

Log lines, folders and the order of things are BasicSR's (basicsr/train.py, basicsr/test.py), and so are the pieces.
What differs: all that is random is drawn from the seed, the iteration and the rank, so that a resumed run is the same
run; checkpoints are whole or absent; a signal to stop is answered with a checkpoint.
"""

from __future__ import annotations

import datetime
import errno
import logging
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel
from basicsr.models.video_base_model import VideoBaseModel
from basicsr.utils import (
    AvgTimer,
    MessageLogger,
    get_env_info,
    get_root_logger,
    make_exp_dirs,
    mkdir_and_rename,
)
from basicsr.utils.options import dict2str
from basicsr.utils.registry import MODEL_REGISTRY
from torch.utils.data import DataLoader

from srflow_plugin.data.build import build, checked_images
from srflow_plugin.errors import TrainingError, UserError, printable
from srflow_plugin.metrics.published import read_without_code
from srflow_plugin.metrics.samples import needs_reference
from srflow_plugin.options.schema import ImageData, Logger, Section, Train, Val, read
from srflow_plugin.training.amp import MixedPrecision, lower_precision
from srflow_plugin.training.cuda_names import of_this_machine
from srflow_plugin.training.distributed import any_rank, gather, gather_work
from srflow_plugin.training.log import Boards, RunLog, log_file
from srflow_plugin.training.order import Draws, global_batch_size, training_batches
from srflow_plugin.training.resume import read_state, resume
from srflow_plugin.training.seeds import seed_everything
from srflow_plugin.training.setup import Run
from srflow_plugin.training.state import Checkpoints, Progress, build_model
from srflow_plugin.training.stop import StopBetweenImages, StopRequest, StopRequested

IMWRITE_FAILED = "Failed in writing images"  # BasicSR's words
FOLDERS = ("experiments_root", "results_root", "models", "training_states", "log", "visualization")  # of a run
NOTES_IN_LOG = 20  # of images that were skipped or converted; all are counted


@read_without_code()
def train_pipeline(run: Run) -> int:
    """Train as an option file says; returns the exit code: 130 after SIGINT, else 0."""
    torch.backends.cudnn.benchmark = True
    stop = StopRequest()
    start_time = time.time()
    with of_this_machine(run.opt), stop:
        training = Training(run, stop)
        logger, progress = get_root_logger(), training.progress
        try:
            training.validate_after_resume()
            for data in training.batches():
                training.step(data)
                training.log_and_save()
                if any_rank(stop.requested):
                    raise StopRequested
                training.validate_if_due()
            logger.info(f"End of training. Time consumed: {datetime.timedelta(seconds=int(time.time() - start_time))}")
            training.finish()
        except StopRequested:
            training.save(must=True)
            saved = f"after iteration {progress.iteration}, which is saved"
            logger.warning(f"Stopped by {stop} {saved}; --auto_resume goes on.")
        training.close()
    return stop.exit_code


class Training:
    """One training: its data, model, validation and checkpoints, and how far it has come.

    An older experiment of its name keeps its place until the first step is taken.

    Args:
        run: what to train.
        stop: asked between two images of a validation.
    """

    def __init__(self, run: Run, stop: StopRequest) -> None:
        self.opt = opt = run.opt
        self.options = read(Train, opt["train"])
        self.logger_options = read(Logger, opt["logger"])
        self.data_options = read(ImageData, opt["datasets"]["train"])
        self.opt_file = run.opt_file
        resume_state = opt["path"].get("resume_state")
        state = read_state(Path(resume_state)) if resume_state else None
        self.log = _start_log(run)
        self.logger = self.log.logger
        self.boards: Boards | None = None  # nor folders, before the first step
        self.runs = {key: value for key, value in (state or {}).items() if key in ("wandb_id", "trackio_run")}
        self.batch_size = global_batch_size(opt)
        self.progress = Progress.of(state, opt["manual_seed"], self.batch_size)
        opt["manual_seed"] = self.progress.seed
        self.train_set = checked_images(opt["datasets"]["train"], "datasets.train")
        val_loaders = [_val_loader(opt, phase, stop) for phase in opt["datasets"] if phase.split("_")[0] == "val"]
        self.model = build(build_model, opt, "the model")
        self.amp = MixedPrecision(self.model, self.options.amp)
        self.validation = Validation(self.model, val_loaders, opt.get("val"))
        keep_last, keep_best = self.logger_options.keep_last, self.logger_options.keep_best
        self.checkpoints = Checkpoints(self.model, keep_last, keep_best)
        if state:
            resume(self.model, state, Path(resume_state))
            self.amp.resume(state.get("amp"))
        self.is_resumed = state is not None
        self.images_per_epoch = len(self.train_set) * self.data_options.dataset_enlarge_ratio
        self.notes = Notes(self.logger)
        self.data_timer, self.iter_timer = AvgTimer(), AvgTimer()
        self._log_start()
        if self.is_resumed:
            self._begin()

    @property
    def epoch(self) -> int:
        """Number of times that the data set has been gone through."""
        return self.progress.samples // self.images_per_epoch

    def batches(self) -> Any:
        """Read the batches that are left to train on."""
        draws = Draws(self.train_set, self.progress.seed, self.data_options.skip_bad_images)
        left = self.options.total_iter - self.progress.iteration
        batches = training_batches(draws, self.opt, self.progress.samples, left)
        self.data_timer.start()
        self.iter_timer.start()
        return batches

    def step(self, data: Section) -> None:
        """Take one step."""
        self.data_timer.record()
        self.progress.iteration += 1
        iteration = self.progress.iteration
        self.notes.add(data.pop("note", []))
        seed_everything(self.progress.seed, iteration, self.opt["rank"])
        self.model.update_learning_rate(iteration, warmup_iter=self.options.warmup_iter)
        self.model.feed_data(data)
        with self.amp.step(iteration):
            self.model.optimize_parameters(iteration)
        self.progress.samples += self.batch_size
        self.iter_timer.record()
        if self.boards is None:
            self._begin()

    def log_and_save(self) -> None:
        """Log the step and save a checkpoint, where these are due."""
        iteration = self.progress.iteration
        if iteration % self.logger_options.print_freq == 0:
            self.notes.log()
            times = {"time": self.iter_timer.get_avg_time(), "data_time": self.data_timer.get_avg_time()}
            lrs = self.model.get_current_learning_rate()
            log = {"epoch": self.epoch, "iter": iteration, "lrs": lrs, **times, **self.model.get_current_log()}
            self.message_logger(log)
            if self.boards and self.boards.writer:
                for group in self.model.optimizers[0].param_groups:
                    self.boards.writer.add_scalar(f"lr_{group.get('name', '')}".strip("_"), group["lr"], iteration)
        if iteration % self.logger_options.save_checkpoint_freq == 0:
            self.logger.info("Saving models and training states.")
            self.save()

    def validate_if_due(self) -> None:
        """Validate, where that is due."""
        if self.validation.is_due(self.progress.iteration):
            self.validate()
        self.data_timer.start()
        self.iter_timer.start()

    def validate_after_resume(self) -> None:
        """Validate what was to be validated after the checkpoint that the run goes on from."""
        if self.is_resumed and self.validation.is_due(self.progress.iteration):
            self.validate()

    def validate(self) -> None:
        """Validate, and keep the network if it is the best; a failure loses nothing."""
        iteration = self.progress.iteration
        try:
            self.validation.run(iteration)
        except StopRequested:
            raise
        except Exception as error:
            self.save(must=True)
            if isinstance(error, UserError):
                raise
            self.logger.error("The validation failed.", exc_info=True)
            reason = " ".join(str(error).split()) or type(error).__name__
            raise TrainingError(
                f"the validation after iteration {iteration} failed: {reason:.200}; "
                "the training is saved. Mend it, or set val: ~, and go on with --auto_resume"
            ) from error
        self.checkpoints.save_if_best(iteration)

    def save(self, must: bool = False) -> None:
        """Save a checkpoint."""
        more = {**(self.boards.runs if self.boards else self.runs), **self.amp.state()}
        self.checkpoints.save(self.epoch, self.progress, must, more)

    def finish(self) -> None:
        """Save the latest networks, validate."""
        self.logger.info("Save the latest model.")
        self.checkpoints.save_networks("latest", must=True)
        self.validate()

    def close(self) -> None:
        """Sum up and close the logs."""
        self.notes.summarise()
        if self.boards:
            self.boards.close()
        self.log.close()

    def _begin(self) -> None:
        """Make the run's folders and files; what a new run of the name replaces is renamed."""
        _make_folders(self.opt, self.opt_file, is_new=not self.is_resumed)
        self.log.open(log_file(self.opt, "train"))
        self.boards = Boards(self.opt, self.runs)
        self.validation.tb_logger = self.boards.writer
        # Its time begins here: a better estimate without the first iteration.
        shown = {**self.opt, "logger": {**self.opt["logger"], "use_tb_logger": self.boards.writer is not None}}
        # BasicSR's estimate leaves out one iteration too many: after the last one it would be "-1 day".
        shown["train"] = {**self.opt["train"], "total_iter": self.options.total_iter + 1}
        self.message_logger = MessageLogger(shown, self.progress.iteration, self.boards.writer)

    def _log_start(self) -> None:
        total_iter, data = self.options.total_iter, self.data_options
        self.logger.info(
            "Training statistics:"
            f"\n\tNumber of train images: {len(self.train_set)}"
            f"\n\tDataset enlarge ratio: {data.dataset_enlarge_ratio}"
            f"\n\tBatch size per gpu: {data.batch_size_per_gpu}"
            f"\n\tWorld size (gpu number): {self.opt['world_size']}"
            f"\n\tRequire iter number per epoch: {math.ceil(self.images_per_epoch / self.batch_size)}"
            f"\n\tTotal epochs: {math.ceil(total_iter * self.batch_size / self.images_per_epoch)}; iters: {total_iter}."
        )
        place = f"epoch: {self.epoch}, iter: {self.progress.iteration}"
        if self.is_resumed:
            self.logger.info(f"Resuming training from {place}.")
        self.logger.info(f"Start training from {place}")


@read_without_code()
def test_pipeline(run: Run) -> int:
    """Test as an option file says, the images shared among all processes; returns the exit code."""
    torch.backends.cudnn.benchmark = True
    opt, stop = run.opt, StopRequest()
    log = _start_log(run)
    with of_this_machine(opt), stop:
        loaders = [_val_loader(opt, phase, stop) for phase in sorted(opt["datasets"])]
        model = build(build_model, _without_ddp(opt) if opt["dist"] else opt, "the model")
        model.opt["dist"] = opt["dist"]
        lower_precision(model, read(Val, opt["val"]).amp)
        _make_folders(opt, None, is_new=True)
        log.open(log_file(opt, "test"))
        try:
            for loader in loaders:
                log.logger.info(f"Testing {loader.dataset.opt['name']}...")  # type: ignore[attr-defined]
                save_img = read(Val, opt["val"]).save_img
                validate_together(model, loader, opt["name"], None, save_img)
        except StopRequested:
            log.logger.warning(f"Stopped by {stop}.")
    log.close()
    return stop.exit_code


def _without_ddp(opt: Section) -> Section:
    """Change the options of a test so that the model's networks are plain ones, as far as the model lets them be.

    DistributedDataParallel has nothing to do in a test, and asks for a GPU. BasicSR's models of videos need ``dist``.
    """
    model: Any = MODEL_REGISTRY.get(opt["model_type"])
    is_plain = model.dist_validation is SRModel.dist_validation  # on rank 0 only
    return {**opt, "dist": False, "num_gpu": min(opt["num_gpu"], 1)} if is_plain else opt


class Validation:
    """Validates on all data sets, once for an iteration."""

    def __init__(self, model: BaseModel, loaders: list[DataLoader[Any]], val_opt: Section | None) -> None:
        self.model = model
        self.loaders = loaders
        self.tb_logger: Any = None  # until there is a folder for it
        self.options = read(Val, val_opt) if val_opt else None
        self.last_iter = 0

    def is_due(self, current_iter: int) -> bool:
        """Say whether the option file asks for a validation after this iteration."""
        return self.options is not None and current_iter % self.options.val_freq == 0

    def run(self, current_iter: int) -> None:
        """Validate, unless this iteration has been."""
        if self.options is None or current_iter == self.last_iter:
            return
        for loader in self.loaders:
            validate_together(self.model, loader, current_iter, self.tb_logger, self.options.save_img)
        self.last_iter = current_iter


def validate_together(
    model: BaseModel, loader: DataLoader[Any], current_iter: int | str, tb_logger: Any, save_img: bool
) -> None:
    """Validate a data set; all ranks go on, or stop, together. A model of BasicSR's own validates on rank 0 only."""
    cudnn = torch.backends.cudnn
    searches, cudnn.benchmark = cudnn.benchmark, False  # which begin anew for every size of image
    try:
        with _suited_to(model, loader.dataset.opt):  # type: ignore[attr-defined]
            gather_work(lambda: model.validation(loader, current_iter, tb_logger, save_img))
    except OSError as error:
        if IMWRITE_FAILED not in str(error) and error.errno != errno.ENOSPC:
            raise
        _tell_unwritten(model, loader)
    finally:
        cudnn.benchmark = searches


def _tell_unwritten(model: BaseModel, loader: DataLoader[Any]) -> None:
    """Say that a model of BasicSR could not write a picture, which ends a test and no training."""
    dataset: Any = loader.dataset
    failure = f"Pictures of {dataset.opt['name']} could not be written: is the disk full?"
    if not model.is_train:
        raise TrainingError(failure)
    get_root_logger().error(f"{failure} Its validation ends here. Training goes on.")


@contextmanager
def _suited_to(model: BaseModel, dataset: Section) -> Iterator[None]:
    """Leave out, in the block, what a data set without ground truth cannot give; one of several has its own folder."""
    val, path = model.opt["val"], model.opt["path"]
    metrics, folder = val.get("metrics"), path["visualization"]
    if metrics is not None:
        val["metrics"] = measurable(metrics, dataset) or (None if isinstance(model, VideoBaseModel) else {})
    if model.opt["is_train"] and sum(phase.startswith("val") for phase in model.opt["datasets"]) > 1:
        path["visualization"] = str(Path(folder, dataset["name"]))
    vars(model).pop("metric_results", None)  # which BasicSR makes for its first data set, and keeps
    try:
        yield
    finally:
        val["metrics"], path["visualization"] = metrics, folder


def measurable(metrics: Section, dataset: Section) -> Section:
    """Find the metrics that can be computed on a data set: without ground truth, those that need none."""
    has_gt = dataset.get("dataroot_gt") is not None or dataset.get("dataroot_lq") is None
    return {name: metric for name, metric in metrics.items() if has_gt or not needs_reference(metric)}


class Notes:
    """Collector of what is worth knowing about images that were read, by any process: each note once in the log, all
    counted.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self.logger = logger
        self.counts: Counter[str] = Counter()  # of this process, since they were last told
        self.told: Counter[str] = Counter()  # of all processes

    def add(self, notes: list[str]) -> None:
        """Take up a batch's notes, several lines where one draw read several files."""
        self.counts.update(line for note in notes for line in note.splitlines())

    def log(self) -> None:
        """Log what is new in any process; all come here together."""
        for counts in gather(self.counts):
            for note, count in counts.items():
                if note not in self.told and len(self.told) < NOTES_IN_LOG:
                    self.logger.warning(note)
                self.told[note] += count
        self.counts.clear()

    def summarise(self) -> None:
        """Log how many there were."""
        self.log()
        if self.told:
            self.logger.warning(f"{self.told.total()} images were skipped or converted, {len(self.told)} different.")


def _val_loader(opt: Section, phase: str, stop: StopRequest) -> DataLoader[Any]:
    dataset_opt = opt["datasets"][phase]
    images = checked_images(dataset_opt, f"datasets.{phase}")
    get_root_logger().info(f"Number of {dataset_opt['phase']} images/folders in {dataset_opt['name']}: {len(images)}")
    metrics = (opt.get("val") or {}).get("metrics") or {}
    left_out = metrics.keys() - measurable(metrics, dataset_opt).keys()
    if left_out:
        get_root_logger().warning(
            f"{dataset_opt['name']} has no ground truth (dataroot_gt): {', '.join(sorted(left_out))} cannot be measured"
        )
    return DataLoader(StopBetweenImages(images, stop), batch_size=1)


def _make_folders(opt: Section, opt_file: Path | None, is_new: bool) -> None:
    """Make the experiment's folders, by rank 0; an older experiment of that name is renamed unless it goes on."""
    try:
        if opt["rank"] == 0 and is_new:
            make_exp_dirs({**opt, "path": {key: path for key, path in opt["path"].items() if key in FOLDERS}})
            if opt["is_train"] and opt["logger"].get("use_tb_logger") and "debug" not in opt["name"]:
                mkdir_and_rename(str(Path(opt["root_path"]) / "tb_logger" / opt["name"]))
        elif opt["rank"] == 0:
            for key in ("models", "training_states", "visualization"):
                Path(opt["path"][key]).mkdir(parents=True, exist_ok=True)
        if opt["rank"] == 0 and opt_file:
            _copy_option_file(opt_file, Path(opt["path"]["experiments_root"]))
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; choose a working folder that can be written") from None
    any_rank(False)  # nobody goes on before the folders are there


def _copy_option_file(opt_file: Path, folder: Path) -> None:
    """Keep an option file with a run, and the command line above it as one comment, whatever that holds."""
    command = printable(" ".join(sys.argv))
    head = f"# GENERATE TIME: {time.asctime()}\n# CMD:\n# {command}\n\n"
    (folder / opt_file.name).write_text(head + opt_file.read_text(encoding="utf-8"), encoding="utf-8")


def _start_log(run: Run) -> RunLog:
    log = RunLog(run.opt)
    log.logger.info(get_env_info())
    log.logger.info(dict2str(run.opt))
    log.logger.info(f"Plugins: {', '.join(run.plugins) or 'none'}.")
    for note in run.notes:
        log.logger.warning(note)
    return log
