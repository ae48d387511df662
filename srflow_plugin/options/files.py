"""Option files: read safely, changed by ``--force_yml``."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from srflow_plugin.errors import SHORT, UserError, short
from srflow_plugin.files import check_is_file

MOST_BYTES = 2**20  # of a file; some 5,000 are usual
MOST_VALUES, MOST_LETTERS = 10_000, 2**20  # of a file, with what its aliases repeat; some 200 values are usual
DEEPEST = 40  # sections in sections; six are usual
LONGEST_KEY, LONGEST_NUMBER = 200, 60  # characters
LARGEST = 2**63  # whole numbers that no library takes begin there
MERGE = "tag:yaml.org,2002:merge"
SECRET = re.compile(r"(?:.*_)?(?:api_?key|access_?key|secret|token|password|passwd|credentials?)", re.IGNORECASE)
# What PyYAML's constructors raise where a value is none, such as 0b_ or 99:99:99:...
NO_VALUE = (yaml.YAMLError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError)


class _Loader(yaml.SafeLoader):
    """YAML without Python objects, in which ``5e-4`` is the number that everybody means (YAML 1.1 reads text).

    A date is text: no option is a date, and a name may look like one. What is nested far too deeply is not read on.
    """

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Read a value, and those in it."""
        if self.depth > 2 * DEEPEST:
            raise RecursionError
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
    for letter, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_options(path: Path, force: Sequence[str] = ()) -> dict[str, Any]:
    """Read an option file and change it by ``--force_yml`` entries.

    Raises:
        UserError: it cannot be read, is none, or holds what no option file holds, with the line.
    """
    opt = parse(_text_of(path), str(path))
    if not isinstance(opt, dict):
        raise UserError(f"{path} is not an option file: it has no keys")
    force_options(opt, force)
    _check_secrets(opt)
    return opt


def _text_of(path: Path) -> str:
    try:
        if path.exists():
            check_is_file(path)
        with path.open(encoding="utf-8") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give an option file with -opt, see options/") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a YAML file: {error}") from None
    if len(text) > MOST_BYTES:
        raise UserError(f"{path} is not an option file: it has more than {MOST_BYTES:,} bytes")
    return text


def parse(text: str, where: str) -> Any:
    """Read YAML; sections that aliases repeat become sections of their own.

    Raises:
        UserError: it is no YAML, or its keys, values or aliases are not those of an option file.
    """
    _check_backslashes(text, where)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _Measure(where).add(node)
        return _unshared(loader.construct_document(node))
    except RecursionError:
        raise UserError(f"{where} is not an option file: its sections are nested too deeply") from None
    except NO_VALUE as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where} is not a YAML file: {' '.join(str(error).split()):.400}") from None


class _Measure:
    """Look over YAML before anything is made of it: its keys, and how much its aliases make of it."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.sizes: dict[int, tuple[int, int] | None] = {}  # values and letters of a node; None: it is being measured

    def add(self, node: Node, depth: int = 0) -> tuple[int, int]:
        """Measure a node: values and letters, those of aliases as often as they are named."""
        if id(node) in self.sizes:
            size = self.sizes[id(node)]
            if size is None:
                raise self._refusal(node, f"its aliases repeat more than {MOST_VALUES} values: one holds itself")
            return size
        if depth > DEEPEST:
            raise self._refusal(node, "its sections are nested too deeply")
        self.sizes[id(node)] = None
        parts: list[Node] = []
        values, letters = 1, 0
        if isinstance(node, ScalarNode):
            letters = self._letters(node)
        elif isinstance(node, MappingNode):
            self._check_keys(node)
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, SequenceNode):
            parts = node.value
        for part in parts:
            more, longer = self.add(part, depth + 1)
            values, letters = values + more, letters + longer
        if values > MOST_VALUES or letters > MOST_LETTERS:
            raise self._refusal(node, f"its aliases repeat more than {MOST_VALUES} values, or very long ones")
        self.sizes[id(node)] = values, letters
        return values, letters

    def _letters(self, node: ScalarNode) -> int:
        kind = node.tag.rpartition(":")[2]
        if kind in ("int", "float") and len(node.value) > LONGEST_NUMBER:
            raise self._refusal(node, f"{short(node.value)} is too long for a number")
        return len(node.value)

    def _check_keys(self, node: MappingNode) -> None:
        """Refuse keys that are no names, and a key that stands twice, whose first value nobody would miss."""
        first: dict[Hashable, int] = {}
        for key, _ in node.value:
            if key.tag == MERGE:
                continue
            if not isinstance(key, ScalarNode) or not key.tag.endswith(":str"):
                raise self._refusal(key, f"the key {short(key.value)} is no name; put it in quotes")
            if not _is_name(key.value):
                raise self._refusal(key, f"the key {short(key.value)} is no name")
            line = key.start_mark.line + 1
            if key.value in first:
                again = f"{key.value} stands twice, in lines {first[key.value]} and {line}"
                raise UserError(f"{self.where}: {again}; leave one out")
            first[key.value] = line

    def _refusal(self, node: Node, what: str) -> UserError:
        return UserError(f"{self.where}, line {node.start_mark.line + 1}: {what}")


def _is_name(key: str) -> bool:
    return key.isprintable() and 0 < len(key) <= LONGEST_KEY


def _construct_int(loader: _Loader, node: ScalarNode) -> int:
    number = int(loader.construct_yaml_int(node))
    if not -LARGEST <= number < LARGEST:
        raise ValueError(f"{short(node.value)} in line {node.start_mark.line + 1} is too large for a number")
    return number


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def _check_secrets(section: Any, where: str = "") -> None:
    """Refuse keys whose values nobody should read in a log, in a copy of the file, or on a board."""
    parts = section.items() if isinstance(section, dict) else enumerate(section) if isinstance(section, list) else ()
    for key, value in parts:
        name = f"{where}.{key}" if where else str(key)
        if isinstance(key, str) and SECRET.fullmatch(key) and isinstance(value, str) and value:
            instead = "WANDB_API_KEY" if where == "logger.wandb" else "a variable of the environment"
            raise UserError(f"{name} would stand in the log and in copies of the option file; set {instead} instead")
        _check_secrets(value, name)


def _check_backslashes(text: str, where: str) -> None:
    """Refuse a path of Windows in double quotes, in which YAML reads C:\\new as C:, a new line, ew."""
    path = re.search(r'^[^#\n]*"([A-Za-z]:\\[^\\][^"\n]*)"', text, re.MULTILINE)
    if path:
        raise UserError(f"{where}: \\ is special in double quotes; write {path[1]} in single quotes, or with /")


def _unshared(value: Any) -> Any:
    """Copy what an alias (``*name``) repeats: BasicSR takes keys out of a section, and would miss them in the other."""
    if isinstance(value, dict):
        return {key: _unshared(part) for key, part in value.items()}
    return [_unshared(part) for part in value] if isinstance(value, list) else value


def _shown(keys: str, text: str) -> str:
    """Show a ``--force_yml`` entry in a message, without a value that is a secret."""
    entry = f"{keys}={_value_shown(keys, text)}"
    return entry if len(entry) <= SHORT else f"{entry[:SHORT]}..."


def _value_shown(keys: str, text: str) -> str:
    return "..." if SECRET.fullmatch(re.split("[:.]", keys)[-1].strip()) else text


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
        shown = f"--force_yml {_shown(keys, text) if separator else entry[:SHORT]}"
        if not separator or not all(names):
            raise UserError(f"{shown}: write key:subkey=value, e.g. train:ema_decay=0.999")
        try:
            value = None if text.strip().lower() == "none" else parse(text, shown)
        except UserError as error:
            if "is not a YAML file" in str(error):
                raise UserError(f"{shown}: {short(_value_shown(keys, text))} is not a YAML value") from None
            raise
        if not all(_is_name(name) for name in names):
            raise UserError(f"{shown}: {short(keys)} names no option")
        section = opt
        for depth, name in enumerate(names[:-1], start=1):
            section = section.setdefault(name, {})
            if not isinstance(section, dict):
                raise UserError(f"{shown}: {':'.join(names[:depth])} is a value and has no keys")
        section[names[-1]] = value
