"""Types of options: does a value conform, and how is that said. Needs no torch."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin


def conforms(value: Any, hint: Any) -> bool:
    """Compare a value with a type; whole numbers are numbers, true and false are none."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(conforms(value, argument) for argument in arguments)
    if origin is Literal:
        return value in arguments
    if hint is dict or origin is dict:
        return isinstance(value, dict)
    if origin is not None:  # Sequence[int], list[float]
        return isinstance(value, list | tuple) and all(conforms(item, arguments[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return value is None if hint is type(None) else isinstance(value, hint)


def make_whole(section: dict[str, Any], hints: Mapping[str, Any]) -> None:
    """Write, in place, 5000.0, which 5e3 is in YAML, as 5000 where the type is a whole number.

    >>> options = {"total_iter": 5e3, "lr": 1.0}
    >>> make_whole(options, {"total_iter": int, "lr": float})
    >>> options
    {'total_iter': 5000, 'lr': 1.0}
    """
    for name, hint in hints.items():
        value = section.get(name)
        kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        if isinstance(value, float) and value.is_integer() and int in kinds and float not in kinds:
            section[name] = int(value)


def describe(hint: Any) -> str:
    """Say a type in words.

    >>> describe(int | list[float] | None), describe(Literal["a", "b"])
    ('a whole number or a list, each a number or none', 'a or b')
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        words = " or ".join(describe(argument) for argument in arguments).split(" or ")
        return " or ".join(dict.fromkeys(words))  # "none" may be a word of its own, too
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin is not None and origin is not dict:
        return f"a list, each {describe(arguments[0])}"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", dict: "a section with keys"}
    return names.get(dict if origin is dict else hint, "none")


def words(hint: Any) -> list[str]:
    """List the words that a type takes.

    >>> words(int | Literal["auto", "all"] | None)
    ['auto', 'all']
    """
    if get_origin(hint) is Literal:
        return [word for word in get_args(hint) if isinstance(word, str)]
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()
    return [word for part in parts for word in words(part)]


def join(where: str, key: Any) -> str:
    """Name of an option in messages: ``train.optim_g.lr``."""
    return f"{where}.{key}" if where else str(key)
