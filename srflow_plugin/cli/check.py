"""``basicsr check``: say whether option files would run, without running them."""

from __future__ import annotations

import argparse
from pathlib import Path

from srflow_plugin.cli.train import add_changes, check_alone, load_plugins, require_extra
from srflow_plugin.errors import UserError
from srflow_plugin.progress import say

HELP = "check option files: one line each, what would stop a run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="option files (YAML)")
    parser.add_argument("--data", action="store_true", help="check the weights and data sets that they name, too")
    add_changes(parser)


def run(args: argparse.Namespace) -> int:
    require_extra()
    has_mistake = False
    for file in args.files:
        try:
            check_alone(file, args.force_yml)
        except UserError as mistake:
            line, has_mistake = str(mistake), True
        else:
            load_plugins(args.plugin, args.no_plugins)
            line, is_good = _check(file, args)
            has_mistake |= not is_good
        say(f"{file}: {line.removeprefix(f'{file}: ')}")
    return 2 if has_mistake else 0


def _check(file: Path, args: argparse.Namespace) -> tuple[str, bool]:
    """Check what needs BasicSR; say what came of it, and whether the file is good."""
    from srflow_plugin.training.setup import check_options

    try:
        notes = check_options(file, force=args.force_yml, with_data=args.data)
    except UserError as mistake:
        return str(mistake), False
    return "ok" + (f" ({'; '.join(notes)})" if notes else ""), True
