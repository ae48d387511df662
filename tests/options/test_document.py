"""The documentation of the options is what the schema says, and every option file of ours fits it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.options import document, schema
from srflow_plugin.options.files import load_options
from tests.helpers import CLONE

pytestmark = CLONE
ROOT = Path(__file__).resolve().parents[2]
OPTION_FILES = [*sorted(ROOT.glob("options/*.yml")), *sorted(ROOT.glob("recipes/*.yml")), ROOT / "tests" / "tiny.yml"]


def problems(opt: dict[str, Any]) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(document.json_schema()).iter_errors(opt)]


def test_the_page_and_the_schema_for_editors_are_up_to_date() -> None:
    page = document.PAGE.read_text()
    assert document.with_tables(page) == page
    assert json.loads(document.SCHEMA_FILE.read_text()) == document.json_schema()
    for name in document.TABLES:
        assert f"<!-- table: {name} -->" in page


def test_the_schema_for_editors_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(document.json_schema())


@pytest.mark.parametrize("path", OPTION_FILES, ids=lambda path: path.stem)
def test_an_option_file_of_ours_fits_and_names_the_schema(path: Path) -> None:
    assert problems(load_options(path)) == []
    first = path.read_text().splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (path.parent / first.partition("=")[2]).resolve() == document.SCHEMA_FILE


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("train:total_itr=1", "'total_itr' was unexpected"),
        ("network_g:num_step=1", "'num_step' was unexpected"),
        ("datasets:train:gtsize=16", "'gtsize' was unexpected"),
        ("datasets:train:gt_size=0", "less than the minimum"),
        ("val:resample=1", "not valid under any"),
        ("train:grad_clip=fast", "is not of type 'number'"),
        ("network_g:noise=poisson", "is not one of"),
        ("trian:x=1", "'trian' is not one of"),
    ],
)
def test_a_mistake_is_one_in_the_editor(entry: str, said: str) -> None:
    opt = load_options(ROOT / "options" / "train_SRFlow_x4_quick.yml", [entry])
    assert [problem for problem in problems(opt) if said in problem], problems(opt)


def test_every_argument_of_the_network_has_its_sentence_in_the_docstring() -> None:
    options = {option.name: option for option in document.options_of(SRFlowNet)}
    assert options["scale"].sentence and options["recompute_encoder"].sentence
    assert options["noise_levels"].default == 256


def test_a_new_option_is_one_field(monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    dummy = dataclasses.make_dataclass(
        "Dummy",
        [("dummy", int, schema.option("a number of our own", 7, low=1))],
        bases=(schema.SRFlowTrain,),
        frozen=True,
        kw_only=True,
    )
    assert "| `dummy` | 7 | a number of our own |" in document.table(dummy)
    section = document.section_schema(document.options_of(dummy))
    assert section["properties"]["dummy"] == {
        "description": "a number of our own",
        "type": "integer",
        "minimum": 1,
        "default": 7,
    }
