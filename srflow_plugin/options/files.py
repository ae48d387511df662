"""Option files: read safely, changed by ``--force_yml``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from srflow_plugin.errors import UserError

MOST_VALUES = 10_000  # of a file; some 200 are usual


class _Loader(yaml.SafeLoader):
    """YAML without Python objects, in which ``5e-4`` is the number that everybody means (YAML 1.1 reads text)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_options(path: Path, force: Sequence[str] = ()) -> dict[str, Any]:
    """Read an option file and change it by ``--force_yml`` entries."""
    try:
        text = path.read_text(encoding="utf-8")
        _check_backslashes(text, str(path))
        opt = yaml.load(text, _Loader)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give an option file with -opt, see options/") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(opt, dict):
        raise UserError(f"{path} is not an option file: it has no keys")
    try:
        opt = {key: _unshared(value, itertools.count()) for key, value in opt.items()}
    except (OverflowError, RecursionError):
        raise UserError(f"{path} is not an option file: its aliases repeat more than {MOST_VALUES} values") from None
    force_options(opt, force)
    return opt


def _check_backslashes(text: str, where: str) -> None:
    """Refuse a path of Windows in double quotes, in which YAML reads C:\\new as C:, a new line, ew."""
    path = re.search(r'^[^#\n]*"([A-Za-z]:\\[^\\][^"\n]*)"', text, re.MULTILINE)
    if path:
        raise UserError(f"{where}: \\ is special in double quotes; write {path[1]} in single quotes, or with /")


def _unshared(value: Any, seen: Iterator[int]) -> Any:
    """Copy what an alias (``*name``) repeats: BasicSR takes keys out of a section, and would miss them in the other."""
    if next(seen) > MOST_VALUES:
        raise OverflowError
    if isinstance(value, dict):
        return {key: _unshared(part, seen) for key, part in value.items()}
    return [_unshared(part, seen) for part in value] if isinstance(value, list) else value


def force_options(opt: dict[str, Any], entries: Sequence[str]) -> None:
    """Set ``key:subkey=value`` entries; keys may be new. Values are YAML; ``none`` is null as in BasicSR.

    ``key.subkey=value``, as messages write it, is taken, too.

    >>> options = {"train": {"total_iter": 10}}
    >>> force_options(options, ["train:total_iter=20", "train.grad_clip=0.5"])
    >>> options
    {'train': {'total_iter': 20, 'grad_clip': 0.5}}
    """
    for entry in entries:
        keys, separator, text = entry.partition("=")
        names = [name.strip() for name in keys.split(":" if ":" in keys else ".")]
        if not separator or not all(names):
            raise UserError(f"--force_yml {entry}: write key:subkey=value, e.g. train:ema_decay=0.999")
        _check_backslashes(text, f"--force_yml {entry}")
        try:
            value = None if text.strip().lower() == "none" else yaml.load(text, _Loader)
        except yaml.YAMLError:
            raise UserError(f"--force_yml {entry}: {text!r} is not a YAML value") from None
        section = opt
        for depth, name in enumerate(names[:-1], start=1):
            section = section.setdefault(name, {})
            if not isinstance(section, dict):
                raise UserError(f"--force_yml {entry}: {':'.join(names[:depth])} is a value and has no keys")
        section[names[-1]] = value
