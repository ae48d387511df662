"""Logs of a run: on the screen from the first line, in files once the run has a folder, and on boards."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

from basicsr.utils import get_root_logger, get_time_str
from basicsr.utils.logger import init_tb_logger

from srflow_plugin.errors import UserError, needs, printable
from srflow_plugin.options.schema import Section
from srflow_plugin.training.tracking import TrackioWriter, Writers

LINE = "%(asctime)s %(levelname)s: %(message)s"  # as BasicSR writes them
MANY_LINES = 10**6
BOARDS = {"wandb": "id", "trackio": "run"}  # with projects; and what a training state calls their runs


class LogFile(logging.FileHandler):
    """Log file of which a fault, as of a full disk, is told once on the screen, where all lines are, too."""

    is_told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Tell of a line that could not be written."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.is_told:
            self.is_told = True
            sys.stderr.write(
                f"{printable(self.baseFilename)} could not be written: {error.strerror}. Training goes on.\n"
            )


class Lines(logging.Formatter):
    """BasicSR's lines, of which nothing is obeyed by a terminal, and none looks like another one's beginning.

    Names of files, options and tensors come from others. What follows the first line of a message begins with a blank.
    """

    def __init__(self) -> None:
        super().__init__(LINE)

    def format(self, record: logging.LogRecord) -> str:
        first, *others = printable(super().format(record), keep="\n\t").split("\n")
        indented = (line if not line or line[0] in " \t" else f"  {line}" for line in others)
        return "\n".join([first, *indented])


class RunLog:
    """BasicSR's logger, which keeps its lines until the file that they belong in can be made."""

    def __init__(self, opt: Section) -> None:
        self.logger: logging.Logger = get_root_logger()
        self.handler: logging.Handler | None = None
        for handler in self.logger.handlers:
            handler.setFormatter(Lines())
        if opt["rank"] == 0:
            self.logger.setLevel(logging.INFO)
            self._use(MemoryHandler(MANY_LINES, flushLevel=logging.CRITICAL + 1))

    def open(self, file: Path) -> None:
        """Write to a file, first the lines so far. On other ranks than the first there is none."""
        if isinstance(self.handler, MemoryHandler):
            early, target = self.handler, LogFile(file, "w", encoding="utf-8")
            target.setFormatter(Lines())
            early.setTarget(target)
            early.flush()
            self._use(target)

    def close(self) -> None:
        """Close the file."""
        self._use(None)

    def _use(self, handler: logging.Handler | None) -> None:
        if self.handler is not None:
            self.logger.removeHandler(self.handler)
            with suppress(OSError):  # which is told
                self.handler.close()
        self.handler = handler
        if handler is not None:
            self.logger.addHandler(handler)


def log_file(opt: Section, what: str) -> Path:
    """Name a log file as BasicSR does."""
    return Path(opt["path"]["log"]) / f"{what}_{opt['name']}_{get_time_str()}.log"


def has_tensorboard(opt: Section) -> bool:
    """Say whether a training writes for TensorBoard; a debugged one does not."""
    return bool(opt["logger"].get("use_tb_logger")) and "debug" not in opt["name"]


def has_boards(opt: Section) -> bool:
    """Say whether a training shows its curves anywhere."""
    return has_tensorboard(opt) or _project(opt, "trackio") is not None


def check_boards(opt: Section) -> None:
    """Check before anything is written that what is to show the curves is installed."""
    if has_tensorboard(opt):
        with needs("train", "logger.use_tb_logger"):
            import_module("torch.utils.tensorboard")
    if _project(opt, "wandb") is not None and not opt["logger"].get("use_tb_logger"):
        raise UserError("logger.wandb shows what TensorBoard does: set logger.use_tb_logger: true")
    for board in BOARDS:
        if _project(opt, board) is not None and find_spec(board) is None:
            raise UserError(f"logger.{board} needs {board}: pip install {board}, or set logger.{board}.project: ~")


class SurvivingWriter:
    """Board's writer, whose faults do not end a training: a full disk, or one that is gone for a while.

    TensorBoard writes in a thread, which ends with its first fault; what is to be shown next raises that fault.

    Args:
        make: the writer.
        board: its name.
        faults: kinds of what is survived.
    """

    def __init__(self, make: Callable[[], Any], board: str = "TensorBoard", faults: type[Exception] = OSError) -> None:
        self._board, self._faults = board, faults
        self._writer: Any = None
        self._hook = threading.excepthook
        threading.excepthook = self._hear
        with self._survived():
            self._writer = make()

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Give one of the writer's methods, which does nothing once it cannot write."""

        def method(*arguments: Any, **settings: Any) -> None:
            if self._writer is not None:
                with self._survived():
                    getattr(self._writer, name)(*arguments, **settings)

        return method

    def close(self) -> None:
        """Write what is left."""
        self.__getattr__("close")()
        threading.excepthook = self._hook

    @contextmanager
    def _survived(self) -> Iterator[None]:
        try:
            yield
        except self._faults as error:
            self._writer = None
            why = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
            reason = f"{self._board}'s curves could not be written: {why:.300}"
            get_root_logger().error(f"{reason}. Training goes on without them; a resume shows them again.")

    def _hear(self, fault: threading.ExceptHookArgs) -> None:
        """Leave a fault to whoever shows something next, if it is of TensorBoard's thread."""
        is_tensorboard = type(fault.thread).__module__.startswith("tensorboard.")
        if not (is_tensorboard and isinstance(fault.exc_value, OSError)):
            self._hook(fault)


class Boards:
    """Curves and pictures, where the option file wants them: TensorBoard, its copy at Weights & Biases, Trackio.

    BasicSR's own start of wandb calls a function that wandb no longer has, and begins a new run there at each resume.

    Args:
        opt: the options.
        runs: of the boards that a resumed training goes on in, by the keys of ``runs`` below; without one the option
            file's, or a new one.

    Attributes:
        writer: of all that show something, on the first rank, which outlives faults; None where there is none.
        runs: to be kept: ``wandb_id``, ``trackio_run``; each None without one.
    """

    def __init__(self, opt: Section, runs: Mapping[str, str | None]) -> None:
        self.runs = {f"{board}_{kind}": runs.get(f"{board}_{kind}") for board, kind in BOARDS.items()}
        self._run: Any = None
        self.writer: Any = None
        if opt["rank"] != 0:
            return
        if _project(opt, "wandb") is not None:
            self._join_wandb(opt)
        writers = []
        if has_tensorboard(opt):
            folder = Path(opt["root_path"]) / "tb_logger" / opt["name"]
            writers.append(SurvivingWriter(lambda: init_tb_logger(log_dir=str(folder))))
        if _project(opt, "trackio") is not None:
            writers.append(self._join_trackio(opt))
        self.writer = Writers(writers) if writers else None

    def _join_wandb(self, opt: Section) -> None:
        import wandb

        project, wanted = _project(opt, "wandb"), opt["logger"]["wandb"].get("resume_id") or self.runs["wandb_id"]
        settings = {"name": opt["name"], "config": opt, "id": wanted, "resume": "allow" if wanted else None}
        self._run = wandb.init(project=project, sync_tensorboard=True, **settings)
        self.runs["wandb_id"] = str(self._run.id)
        get_root_logger().info(f"Weights & Biases: run {self.runs['wandb_id']} of project {project}.")

    def _join_trackio(self, opt: Section) -> SurvivingWriter:
        goes_on = self.runs["trackio_run"] is not None
        project, run = str(_project(opt, "trackio")), self.runs["trackio_run"] or f"{opt['name']}_{get_time_str()}"
        self.runs["trackio_run"] = run
        get_root_logger().info(f"Trackio: run {run} of project {project}.")
        return SurvivingWriter(lambda: TrackioWriter(project, run, opt, goes_on), "Trackio", Exception)

    def close(self) -> None:
        """Write what is left."""
        if self.writer:
            self.writer.close()
        if self._run is not None:
            self._run.finish()


def _project(opt: Section, board: str) -> str | None:
    """Name of the board's project, if the curves are to go there."""
    return (opt["logger"].get(board) or {}).get("project") if "debug" not in opt["name"] else None
