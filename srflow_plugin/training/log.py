"""Logs of a run: on the screen from the first line, in files once the run has a folder."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
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

LINE = "%(asctime)s %(levelname)s: %(message)s"  # as BasicSR writes them
MANY_LINES = 10**6


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


def has_boards(opt: Section) -> bool:
    """Say whether a training shows its curves; a debugged one does not."""
    return bool(opt["logger"].get("use_tb_logger")) and "debug" not in opt["name"]


def check_boards(opt: Section) -> None:
    """Check before anything is written that what is to show the curves is installed."""
    if has_boards(opt):
        with needs("train", "logger.use_tb_logger"):
            import_module("torch.utils.tensorboard")
    if _wandb_project(opt) is None:
        return
    if not opt["logger"].get("use_tb_logger"):
        raise UserError("logger.wandb shows what TensorBoard does: set logger.use_tb_logger: true")
    if find_spec("wandb") is None:
        raise UserError("logger.wandb needs wandb: pip install wandb, or set logger.wandb.project: ~")


class SurvivingWriter:
    """TensorBoard's writer, whose faults do not end a training: a full disk, or one that is gone for a while.

    TensorBoard writes in a thread, which ends with its first fault; what is to be shown next raises that fault.

    Args:
        make: the writer.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
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
        except OSError as error:
            self._writer = None
            reason = f"TensorBoard's curves could not be written: {error.strerror or error}"
            get_root_logger().error(f"{reason}. Training goes on without them; a resume shows them again.")

    def _hear(self, fault: threading.ExceptHookArgs) -> None:
        """Leave a fault to whoever shows something next, if it is of TensorBoard's thread."""
        is_tensorboard = type(fault.thread).__module__.startswith("tensorboard.")
        if not (is_tensorboard and isinstance(fault.exc_value, OSError)):
            self._hook(fault)


class Boards:
    """TensorBoard's curves and pictures and, where the option file names a project, their copy at Weights & Biases.

    BasicSR's own start of wandb calls a function that wandb no longer has, and begins a new run there at each resume.

    Args:
        opt: the options.
        wandb_id: of the run that a resumed training goes on in; None: the option file's, or a new one.

    Attributes:
        writer: TensorBoard's, on the first rank, which outlives a full disk; None where there is none.
        wandb_id: of the run, to be kept; None without one.
    """

    def __init__(self, opt: Section, wandb_id: str | None) -> None:
        self.wandb_id = wandb_id
        self._run: Any = None
        if _wandb_project(opt) is not None and opt["rank"] == 0:
            import wandb

            wanted = opt["logger"]["wandb"].get("resume_id") or wandb_id
            settings = {"name": opt["name"], "config": opt, "id": wanted, "resume": "allow" if wanted else None}
            self._run = wandb.init(project=_wandb_project(opt), sync_tensorboard=True, **settings)
            self.wandb_id = str(self._run.id)
            get_root_logger().info(f"Weights & Biases: run {self.wandb_id} of project {_wandb_project(opt)}.")
        folder = Path(opt["root_path"]) / "tb_logger" / opt["name"]
        is_shown = has_boards(opt) and opt["rank"] == 0
        self.writer = SurvivingWriter(lambda: init_tb_logger(log_dir=str(folder))) if is_shown else None

    def close(self) -> None:
        """Write what is left."""
        if self.writer:
            self.writer.close()
        if self._run is not None:
            self._run.finish()


def _wandb_project(opt: Section) -> str | None:
    """Name of the project, if the curves are to go there."""
    return (opt["logger"].get("wandb") or {}).get("project") if "debug" not in opt["name"] else None
