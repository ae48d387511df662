"""Pages that are made while the site is built: the project's own files, and the commands.

On GitHub the page of a file, such as docs/developers/changelog.md, is a link to it; on the site it is the file.
"""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Iterator
from pathlib import Path

from sphinx.application import Sphinx

from srflow_plugin.cli.main import PROGRAMS, make_parser

DOCS = Path(__file__).resolve().parents[1]
FILES = {
    "developers/readme": "README.md",
    "developers/changelog": "CHANGELOG.md",
    "developers/contributing": "CONTRIBUTING.md",
    "developers/security": "SECURITY.md",
}
COMMANDS = re.compile(r"<!-- commands of (.+?) -->")


def setup(app: Sphinx) -> dict[str, bool]:
    """Let Sphinx ask :func:`fill` for every page that it has read."""
    app.connect("source-read", fill)
    # Lists of pages end in "*", for those to come. Sphinx's warning about it has no type that conf.py could name.
    logging.getLogger("sphinx.sphinx.directives.other").addFilter(lambda record: "glob pattern" not in record.msg)
    return {"parallel_read_safe": True}


def fill(app: Sphinx, name: str, source: list[str]) -> None:
    """Put files and commands into their pages, and lead links to the project's own files to their pages."""
    path = DOCS / name
    if name in FILES:
        path = DOCS.parent / FILES[name]
        source[0] = path.read_text(encoding="utf-8")
    source[0] = COMMANDS.sub(lambda match: "\n".join(commands(match[1])), with_links(source[0], path.parent))


def with_links(text: str, folder: Path) -> str:
    """Lead the links of a page that lies in ``folder`` to pages of the site; those to folders of the project end.

    Links are made relative to docs/, which MyST marks by a leading slash. Other files of the project are downloads.
    """
    pages = {(DOCS.parent / file).resolve(): DOCS / f"{page}.md" for page, file in FILES.items()}

    def led(match: re.Match[str]) -> str:
        target = (folder / match[2]).resolve()
        target = pages.get(target, target)
        if target.is_dir():
            return match[1]
        return f"[{match[1]}](/{target.relative_to(DOCS)}{match[3]})" if target.is_relative_to(DOCS) else match[0]

    return re.sub(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\((?![a-z]+:|#)([^)#\s]+)([^)\s]*)\)", led, text)


def commands(program: str) -> Iterator[str]:
    """Write the commands of a program, with their options, as Markdown with Sphinx's directives."""
    parser = make_parser(program)
    subparsers = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for name in PROGRAMS[program][1]:
        command = subparsers.choices[name]
        yield from (f"## `{program} {name}`", "", f"{sentence(command.description)}", "")
        yield from ("```text", command.format_usage().removeprefix("usage: ").rstrip(), "```", "")
        yield from (f"```{{program}} {program} {name}", "```", "")
        for group in command._action_groups:
            if group.title not in ("positional arguments", "options", "optional arguments") and group._group_actions:
                yield from (f"**{sentence(group.title)}** {sentence(group.description)}", "")
            for action in group._group_actions:
                if "--help" not in action.option_strings:
                    yield from option(command, action)


def option(command: argparse.ArgumentParser, action: argparse.Action) -> Iterator[str]:
    """Write one option with its help."""
    formatter = command._get_formatter()
    if action.option_strings:
        value = "" if action.nargs == 0 else " " + formatter._format_args(action, action.dest.upper())
        yield "````{option} " + ", ".join(f"{name}{value}" for name in action.option_strings)
    else:
        yield "````{option} " + str(action.metavar or action.dest)
    yield from (as_markdown(sentence(formatter._expand_help(action))), "````", "")


def as_markdown(text: str) -> str:
    """Escape what Markdown would take for its own, and put options in backticks."""
    return re.sub(r"(?<!\S)(--[a-z][\w-]*)", r"`\1`", re.sub(r"([\\`*_\[\]<>|])", r"\\\1", text))


def sentence(text: str | None) -> str:
    """Begin with a capital and end with a full stop."""
    return f"{text[0].upper()}{text[1:].rstrip('.')}." if text else ""
