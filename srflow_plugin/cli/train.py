"""``basicsr train``: train a model as an option file says."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from srflow_plugin.errors import UserError, needs, short

HELP = "train a model as an option file says"
PLUGIN_GROUP = "basicsr.plugins"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    with run_of(args, is_train=True) as ready:
        from srflow_plugin.training.pipelines import train_pipeline

        return train_pipeline(ready)


def add_run_arguments(parser: argparse.ArgumentParser, is_train: bool = True) -> None:
    """Add the arguments of BasicSR's own scripts; a test takes those that only a training obeys, and hides them."""
    parser.add_argument("-opt", required=True, type=Path, metavar="FILE", help="option file (YAML)")
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm"],
        default="pytorch" if "TORCHELASTIC_RUN_ID" in os.environ else "none",
        help="how processes are started; under torchrun the default is pytorch, else none",
    )
    resume = "go on from the experiment's newest state, if any" if is_train else argparse.SUPPRESS
    debug = "log every iteration, save and validate every 8th" if is_train else argparse.SUPPRESS
    parser.add_argument("--auto_resume", action="store_true", help=resume)
    parser.add_argument("--debug", action="store_true", help=debug)
    parser.add_argument(
        "--local_rank", "--local-rank", type=int, default=0, help="accepted from old launchers; not used"
    )
    add_changes(parser)


def add_changes(parser: argparse.ArgumentParser) -> None:
    """Add ``--force_yml``, ``--plugin`` and ``--no-plugins``."""
    parser.add_argument(
        "--force_yml",
        nargs="+",
        default=[],
        metavar="KEY:SUBKEY=VALUE",
        help="change options, e.g. train:ema_decay=0.999",
    )
    parser.add_argument(
        "--plugin",
        nargs="+",
        default=[],
        metavar="MODULE",
        help="modules to import first, which register classes and have no entry point in basicsr.plugins",
    )
    parser.add_argument(
        "--no-plugins",
        action="store_true",
        help="import no installed package that has an entry point in basicsr.plugins; those of --plugin all the same",
    )


@contextmanager
def run_of(args: argparse.Namespace, is_train: bool) -> Iterator[Any]:
    """Make the run that the arguments ask for; leave the process group at the end.

    Mistakes that the option file alone shows are told before torch is imported.
    """
    require_extra()
    check_alone(args.opt, args.force_yml, is_train)
    plugins = load_plugins(args.plugin, args.no_plugins)
    from srflow_plugin.training.distributed import leave
    from srflow_plugin.training.setup import load_run

    try:
        ready = load_run(
            args.opt,
            is_train=is_train,
            force=args.force_yml,
            launcher=args.launcher,
            auto_resume=args.auto_resume,
            debug=args.debug,
        )
        with ready.lock:
            yield ready._replace(plugins=plugins)
    finally:
        leave()


def require_extra() -> None:
    """Say at once that the training wing is not installed."""
    with needs("train", "this command"):
        import_module("yaml")


def check_alone(file: Path, force: Sequence[str], is_train: bool | None = None) -> None:
    """Find the mistakes that an option file alone shows; ``is_train`` unless the file is to say it."""
    from srflow_plugin.options.check import load_checked

    load_checked(file, force, is_train)


def load_plugins(modules: Sequence[str], named_only: bool = False) -> list[str]:
    """Import BasicSR, and everything that registers classes with it and says so by an entry point or is named.

    Args:
        modules: those that are named.
        named_only: import no others.

    Returns:
        What was imported, each with its version.
    """
    from importlib.metadata import entry_points

    with needs("train", "this command"):
        import_module("srflow_plugin.training.setup")
    if modules:
        sys.path.append(str(Path.cwd()))  # where `python -m` finds them, too
    installed = {} if named_only else {plugin.value: plugin for plugin in entry_points(group=PLUGIN_GROUP)}
    found = []
    for value in {**installed, **dict.fromkeys(modules)}:
        plugin = installed.get(value)
        name = plugin.name if plugin else value
        try:
            module = import_module(value.partition(":")[0])
        except Exception as error:
            raise UserError(f"plugin {name} ({value}) cannot be imported: {short(error)}") from error
        version = plugin.dist.version if plugin and plugin.dist else getattr(module, "__version__", "no version")
        found.append(f"{name} {version} ({getattr(module, '__file__', None) or value})")
    return found
