"""The exceptions that a command answers with a line instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import requires
from pathlib import Path


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
