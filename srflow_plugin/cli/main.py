"""The commands: ``basicsr train|test|check`` and ``srflow ...``; ``python -m srflow_plugin`` knows them all."""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import NoReturn

from srflow_plugin._version import __version__
from srflow_plugin.cli import (
    benchmark,
    check,
    completion,
    convert,
    decode,
    demo,
    encode,
    export,
    interpolate,
    nll_map,
    prepare,
    redraw,
    restore,
    std_map,
    test,
    train,
    transfer,
    upscale,
)
from srflow_plugin.errors import TrainingError, UserError, nearest, printable, short
from srflow_plugin.memory import is_shortage

TRAINING: dict[str, ModuleType] = {"train": train, "test": test, "check": check}
TOOLS: dict[str, ModuleType] = {
    "upscale": upscale,
    "demo": demo,
    "prepare": prepare,
    "convert": convert,
    "export": export,
    "benchmark": benchmark,
    "encode": encode,
    "decode": decode,
    "interpolate": interpolate,
    "transfer": transfer,
    "restore": restore,
    "redraw": redraw,
    "std-map": std_map,
    "nll-map": nll_map,
}
PROGRAMS: dict[str, tuple[str, dict[str, ModuleType]]] = {
    "basicsr": ("Train and test BasicSR's models, SRFlow, and those of other plugins. For images: srflow.", TRAINING),
    "srflow": ("Upscale images, prepare data, compare and inspect SRFlow networks. To train: basicsr train.", TOOLS),
    "python -m srflow_plugin": ("SRFlow for BasicSR.", {**TRAINING, **TOOLS}),
}
# Full disks, and those that fail or turn out to be read only in the midst of the work.
FAULTS_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM)
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # how threads of OpenMP wait
LONGEST_LINE = 4000  # characters; of messages some 200 are usual


def basicsr_command(argv: Sequence[str] | None = None) -> int:
    """Run ``basicsr``; return its exit code."""
    return _run("basicsr", argv)


def srflow_command(argv: Sequence[str] | None = None) -> int:
    """Run ``srflow``; return its exit code."""
    return _run("srflow", argv)


def all_commands(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m srflow_plugin``; return its exit code."""
    return _run("python -m srflow_plugin", argv)


class Parser(argparse.ArgumentParser):
    """Argument parser whose complaint about a mistyped command is one line with the one that is meant.

    Nothing in that line, or in a command's own last one, can move the cursor or be taken for another line.
    """

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        super().exit(status, message and f"{printable(message.rstrip()):.{LONGEST_LINE}}\n")


class _Versions(argparse.Action):
    """``--version``: this package, the Python, and the distributions that it stands on, as far as they are there."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import packages_distributions, version

        found = packages_distributions()
        parts = [f"Python {sys.version.split()[0]}"]
        for package, title in (("torch", "PyTorch"), ("basicsr", "BasicSR")):
            for distribution in found.get(package, [])[:1]:
                name = "" if distribution in (package, title) else f" ({distribution})"
                parts.append(f"{title} {version(distribution)}{name}")
        sys.stdout.write(f"srflow_plugin {__version__}, {', '.join(parts)}\n")
        parser.exit()


def make_parser(name: str) -> Parser:
    """Make the parser of a program of ``PROGRAMS``, with its commands and their options."""
    description, commands = PROGRAMS[name]
    parser = Parser(prog=name, description=description, allow_abbrev=False)
    parser.add_argument("--version", action=_Versions, nargs=0, help="show versions of this package and what it uses")
    if name.isalpha():  # a command of its own, which a shell can complete
        completion.add_completion(parser)
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=Parser)
    for command, module in commands.items():
        subparser = subparsers.add_parser(command, help=module.HELP, description=module.HELP, allow_abbrev=False)
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run, parser=subparser)
    return parser


def _run(name: str, argv: Sequence[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may have letters that a terminal has not
            stream.reconfigure(errors="backslashreplace")
    parser = make_parser(name)
    try:
        args = _parse(parser, _without_rank(list(sys.argv[1:] if argv is None else argv)), PROGRAMS[name][1])
        if args.run not in [module.run for module in TRAINING.values()]:
            _let_threads_sleep()
        return args.run(args) or 0
    except UserError as error:
        parser.exit(2, f"{name}: error: {error}\n")
    except TrainingError as fault:
        parser.exit(1, f"{name}: stopped: {fault}\n")
    except (MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
        hint = "smaller images, tiles (--tile) or batches, or fewer --num-samples, need less"
        parser.exit(1, f"{name}: stopped: there is not enough memory for this; {hint}\n")
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            parser.exit(2, f"{name}: error: {short(error.filename)}: {error.strerror}; correct the path\n")
        if error.errno not in FAULTS_OF_DISKS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        parser.exit(1, f"{name}: stopped: {where}{error.strerror}; what is done stays\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{name}: interrupted\n")


def _let_threads_sleep() -> None:
    """Let torch's threads sleep where they wait for each other, unless the user has chosen.

    Threads that spin keep a core from the one that they wait for, once another process takes part of the cores: drawing
    images took twice as long. A training's many small steps are slower with threads that sleep, if it is alone
    (docs/results/speed.md); so it chooses nothing. OpenMP looks at it once, as torch is imported.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def _without_rank(argv: list[str]) -> list[str]:
    """Leave out what torch.distributed.launch puts before the command; the rank is in the environment, too."""
    return argv[1:] if argv and re.match(r"--local[-_]rank=\d+$", argv[0]) else argv


def _parse(parser: Parser, argv: Sequence[str], commands: Mapping[str, ModuleType]) -> argparse.Namespace:
    """Parse a command line; name the command or option that was meant by one that is unknown."""
    first = argv[0] if argv else "--help"
    general = parser._option_string_actions  # before any command
    if first.startswith("-") and first.partition("=")[0] not in general:
        parser.exit(2, f"{parser.prog}: error: {first} is not understood{nearest(first, general)}\n")
    if not first.startswith("-") and first not in commands:
        others = {f"basicsr {name}" for name in TRAINING} | {f"srflow {name}" for name in TOOLS}
        elsewhere = [other for other in others if other.endswith(f" {first}")]
        hint = f"; did you mean {elsewhere[0]}?" if elsewhere else nearest(first, commands)
        parser.exit(2, f"{parser.prog}: error: there is no command {first!r}{hint}\n")
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        options = [option for action in args.parser._actions for option in action.option_strings]
        hint = nearest(unknown[0], options) if unknown[0].startswith("-") else ""
        parser.exit(2, f"{args.parser.prog}: error: {unknown[0]} is not understood{hint}\n")
    return args
