"""The exceptions that a command answers with a line instead of a traceback, and what such a line may hold."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import requires
from pathlib import Path
from typing import Any

SHORT = 200  # characters of a value in a message
FLATTEN = "remove it, for example by `magick in.png -background white -flatten out.png`"  # of transparency
_values = reprlib.Repr()
_values.maxlevel, _values.maxstring, _values.maxother, _values.maxlong = 3, 120, 120, 40


class UserError(ValueError):
    """Mistake that the user can put right; its text says which and how. Commands print it and exit with code 2."""


class TrainingError(RuntimeError):
    """End of a run that cannot go on; its text says why and what is saved. Commands print it and exit with code 1."""


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Name the extra that is missing where an import in the block fails.

    >>> with needs("demo", "srflow demo"):
    ...     import no_such_module
    Traceback (most recent call last):
    srflow_plugin.errors.UserError: srflow demo needs no_such_module, which is not installed: pip install ...
    """
    try:
        yield
    except ImportError as error:
        missing = error.name or str(error)
        raise UserError(f"{what} needs {missing}, which is not installed: {install_command(extra)}") from error


def install_command(extra: str) -> str:
    """Command that installs an extra, here and now: from the clone that is imported, or package by package."""
    clone = Path(__file__).parents[1]
    if (clone / "setup.py").is_file():
        return f'pip install -e "{clone}[{extra}]"'
    packages = (line.partition(";") for line in requires("srflow_plugin") or [])
    return "pip install " + " ".join(f'"{name.strip()}"' for name, _, when in packages if f'extra == "{extra}"' in when)


def printable(text: str, keep: str = "") -> str:
    """Escape what a terminal would obey instead of showing it, but for the characters to keep.

    Control characters, ends of lines, marks that turn the direction of writing, halves of characters, odd spaces: names
    of files and keys come from others, and may hold them to look like something else.

    >>> printable("a\\x1b[31mb\\n\\u202egnp.exe é")
    'a\\\\x1b[31mb\\\\n\\\\u202egnp.exe é'
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in keep else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def cell(text: str) -> str:
    """Make a text one cell of a Markdown table, whatever it holds.

    >>> cell("a|b")
    'a\\\\|b'
    """
    return printable(text).replace("|", "\\|")


def counted(number: int, noun: str) -> str:
    """Put a number before a noun, in the singular or the plural.

    >>> counted(1, "image"), counted(2, "image")
    ('1 image', '2 images')
    """
    return f"{number} {noun}{'s' * (number != 1)}"


def short(value: Any) -> str:
    """Show a value of any size in a message, in SHORT characters at most.

    >>> short("a"), len(short([["b" * 10**6] * 10**6] * 10**6)) <= SHORT
    ("'a'", True)
    """
    text = printable(_values.repr(value))
    return text if len(text) <= SHORT else f"{text[: SHORT - 3]}..."


def nearest(name: Any, names: Iterable[str]) -> str:
    """End of a complaint about an unknown name: the known one that is meant, or all."""
    names = list(names)
    return close_match(name, names) or f"; known are {', '.join(sorted(names))}"


def close_match(name: Any, names: Iterable[str]) -> str:
    """End of a note about an unknown name: the known one that is meant, or nothing."""
    names = list(names)
    matches = difflib.get_close_matches(str(name), names, n=1)
    matches = matches or sorted((known for known in names if name and str(name) in known), key=len)
    return f"; did you mean {matches[0]}?" if matches else ""
