"""Option files: read safely, changed by ``--force_yml``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from srflow_plugin.errors import UserError


class _Loader(yaml.SafeLoader):
    """YAML without Python objects, in which ``5e-4`` is the number that everybody means (YAML 1.1 reads text)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_options(path: Path, force: Sequence[str] = ()) -> dict[str, Any]:
    """Read an option file and change it by ``--force_yml`` entries."""
    try:
        with path.open(encoding="utf-8") as file:
            opt = yaml.load(file, _Loader)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give an option file with -opt, see options/") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(opt, dict):
        raise UserError(f"{path} is not an option file: it has no keys")
    force_options(opt, force)
    return opt


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
