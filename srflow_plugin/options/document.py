"""Documentation of the options, made from the schema: tables of docs/reference/options.md, and a JSON Schema.

``python -m srflow_plugin.options.document`` writes both; a test compares them with what is committed.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.options import schema
from srflow_plugin.options.schema import Section

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "options.md"
SCHEMA_FILE = ROOT / "options" / "srflow.schema.json"
# Tables of the page, by the names in its markers.
TABLES: dict[str, Callable[..., Any]] = {
    "top level": schema.TopLevel,
    "degradations": schema.Degradations,
    "network_g": SRFlowNet,
    "path": schema.SRFlowPaths,
    "train": schema.SRFlowTrain,
    "train, prior": schema.SRFlowPriorTrain,
    "val": schema.SRFlowVal,
    "metric": schema.Metric,
    "logger": schema.Logger,
    "datasets": schema.PairedImages,
    "RealESRGANDataset": schema.RealESRGANImages,
    "io_backend": schema.IoBackend,
}
JSON_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean", dict: "object", type(None): "null"}
REQUIRED = dataclasses.MISSING


class Option(NamedTuple):
    """An option as it is documented."""

    name: str
    type: Any
    default: Any
    sentence: str
    low: float = -math.inf
    high: float = math.inf
    below: float = math.inf
    in_training: bool = False


def main() -> None:
    """Write the tables and the schema."""
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    SCHEMA_FILE.write_text(json.dumps(json_schema(), indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{PAGE}, {SCHEMA_FILE}\n")


def options_of(kind: Callable[..., Any]) -> Iterator[Option]:
    """List the options of a section of the schema, or of a class whose keyword arguments a section becomes."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            limits = {key: value for key, value in field.metadata.items() if key in Option._fields}
            yield Option(field.name, hints[field.name], field.default, **limits)
        return
    hints = typing.get_type_hints(kind.__init__)
    sentences = argument_sentences(inspect.getdoc(kind) or "")
    for name, parameter in inspect.signature(kind).parameters.items():
        default = REQUIRED if parameter.default is parameter.empty else parameter.default
        yield Option(name, hints[name], default, sentences[name])


def argument_sentences(docstring: str) -> dict[str, str]:
    """Read the "Args:" of a docstring: each argument's sentence.

    >>> argument_sentences('''A class.
    ...
    ... Args:
    ...     a, b: two
    ...         things.
    ...     c: one.''')
    {'a': 'two things', 'b': 'two things', 'c': 'one'}
    """
    body = docstring.partition("Args:\n")[2]
    body = re.split(r"^\S", body, maxsplit=1, flags=re.MULTILINE)[0]
    sentences = {}
    for entry in re.split(r"^ {4}(?=\w)", body, flags=re.MULTILINE)[1:]:
        names, _, sentence = entry.partition(": ")
        for name in names.split(", "):
            sentences[name] = re.sub(r"(?<!\.)\.$", "", " ".join(sentence.split()).replace("``", "`"))
    return sentences


# -- the page ----------------------------------------------------------------------------------------------------------


def with_tables(page: str) -> str:
    """Put each table between its markers, ``<!-- table: NAME -->`` and ``<!-- end -->``."""

    def filled(match: re.Match[str]) -> str:
        return f"{match[1]}\n{table(TABLES[match[2]])}{match[3]}"

    return re.sub(r"(<!-- table: (.+?) -->)\n.*?(<!-- end -->)", filled, page, flags=re.DOTALL)


def table(kind: Callable[..., Any]) -> str:
    """Make a table of Markdown. Options that share a sentence share a row."""
    rows: dict[str, list[Option]] = {}
    for option in options_of(kind):
        rows.setdefault(option.sentence, []).append(option)
    lines = ["| key | default | |", "|---|---|---|"]
    for options in rows.values():
        names = ", ".join(f"`{option.name}`" for option in options)
        defaults = ", ".join(map(_default, options))
        lines.append(f"| {names} | {defaults} | {options[0].sentence.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def _default(option: Option) -> str:
    if option.default is REQUIRED:
        return "required"
    if option.in_training:
        return "required in training"
    if option.default is None or option.default == math.inf:
        return "none"
    if isinstance(option.default, float):
        return f"{option.default:.5g}"
    return json.dumps(option.default).strip('"')


# -- the schema for editors --------------------------------------------------------------------------------------------


def json_schema() -> Section:
    """Make a JSON Schema (2020-12) of an option file."""
    top_level = list(options_of(schema.TopLevel))
    degradations = {model: list(options_of(schema.Degradations)) for model in schema.SRFLOW_MODELS}
    models = [
        {
            "if": {"properties": {"model_type": {"const": model}}},
            "then": {
                "properties": {
                    **{option.name: option_schema(option) for option in degradations.get(model, [])},
                    **{name: section_schema(options_of(kind)) for name, kind in sections.items()},
                },
                "propertyNames": {"enum": [option.name for option in (*top_level, *degradations.get(model, []))]},
            },
        }
        for model, sections in schema.SECTIONS.items()
    ]
    network = {
        "required": ["type"],
        "if": {"properties": {"type": {"const": "SRFlowNet"}}},
        "then": section_schema([_TYPE, *options_of(SRFlowNet)]),
    }
    datasets = {
        phase: {
            "type": "object",
            "allOf": [
                {
                    "if": {"properties": {"type": {"const": name}}},
                    "then": section_schema(options_of(kind), is_train=phase == "train"),
                }
                for name, kind in schema.DATASETS.items()
            ],
        }
        for phase in ("train", "other")
    }
    file = section_schema(options_of(schema.TopLevel), closed=False)
    file["properties"]["network_g"] |= network
    file["properties"]["datasets"] |= {
        "properties": {"train": datasets["train"]},
        "additionalProperties": datasets["other"],
    }
    title = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Option file of srflow_plugin"}
    return {**title, **file, "allOf": models}


_TYPE = Option("type", str, REQUIRED, "the network's class")


def section_schema(
    options: Iterator[Option] | Sequence[Option], closed: bool = True, is_train: bool = False
) -> Section:
    """Make the schema of a section; ``closed``: it has no other keys."""
    options = list(options)
    required = [option.name for option in options if option.default is REQUIRED or (is_train and option.in_training)]
    return {
        "type": ["object", "null"] if not required else "object",
        "properties": {option.name: option_schema(option) for option in options},
        **({"required": required} if required else {}),
        **({"additionalProperties": False} if closed else {}),
    }


def option_schema(option: Option) -> Section:
    """Make the schema of a value, with what an editor shows of it."""
    described = {"description": option.sentence, **type_schema(option.type, option)}
    if option.default is REQUIRED or option.default == math.inf:
        return described
    return {**described, "default": list(option.default) if isinstance(option.default, tuple) else option.default}


def type_schema(hint: Any, option: Option) -> Section:
    """Make the schema of a type, within the option's range."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        words, *others = arguments
        if get_origin(words) is Literal and others == [types.NoneType]:
            return {"enum": [*get_args(words), None]}
        return {"anyOf": [type_schema(argument, option) for argument in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is not None and origin is not dict:
        return {"type": "array", "items": type_schema(arguments[0], option)}
    kind = dict if origin is dict else hint
    limits = {"minimum": option.low, "maximum": option.high, "exclusiveMaximum": option.below}
    is_number = kind in (int, float)
    return {
        "type": JSON_TYPES[kind],
        **{key: limit for key, limit in limits.items() if is_number and math.isfinite(limit)},
    }


if __name__ == "__main__":
    main()
