"""``--print-completion SHELL``: the script by which a shell completes commands, options and files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srflow_plugin.errors import needs

SHELLS = ("bash", "zsh", "fish", "tcsh")
FILES = {"INPUT", "SOURCE", "IN", "NETWORK", "HR", "LR", "FILE", "DIR"}  # arguments that are files, or may be


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Add ``--print-completion`` to a command that has all others below it."""
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        choices=SHELLS,
        metavar="SHELL",
        help=f"print a completion script for {', '.join(SHELLS)}",
    )


class PrintCompletion(argparse.Action):
    """Print the completion script of a parser, and stop."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Print it for the shell that was asked for."""
        with needs("completion", f"{parser.prog} --print-completion"):
            import shtab
        for action in _actions(parser):
            if _is_file(action):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        sys.stdout.write(shtab.complete(parser, str(values)) + "\n")
        parser.exit(0)


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    actions = list(parser._actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            actions += [one for subparser in action.choices.values() for one in _actions(subparser)]
    return actions


def _is_file(action: argparse.Action) -> bool:
    names = action.metavar if isinstance(action.metavar, tuple) else (action.metavar,)
    return action.nargs != 0 and (action.type is Path or not FILES.isdisjoint(names))
