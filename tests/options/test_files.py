"""Option files and --force_yml: what is read, and what is said when it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srflow_plugin.cli.main import basicsr_command
from srflow_plugin.errors import UserError
from srflow_plugin.options.files import force_options, load_options


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("0.5", 0.5),
        ("5e-4", 5e-4),
        ("1.0E+3", 1e3),
        ("true", True),
        ("none", None),
        ("~", None),
        ("[1, 2]", [1, 2]),
        ("a=b", "a=b"),
        ("__import__('os')", "__import__('os')"),
    ],
)
@pytest.mark.parametrize("separator", [":", "."])
def test_force_yml_values(text: str, value: Any, separator: str) -> None:
    opt: dict[str, Any] = {"train": {"x": 0}}
    force_options(opt, [f"train{separator}x={text}"])
    assert opt == {"train": {"x": value}}


def test_force_yml_makes_new_keys_and_runs_nothing(tmp_path: Path) -> None:
    opt: dict[str, Any] = {}
    force_options(opt, ["a:b:c=1", f'x"]=open("{tmp_path}/run", "w"); opt["y=2'])
    assert opt["a"] == {"b": {"c": 1}}
    assert list(tmp_path.iterdir()) == []


def test_force_yml_has_names_with_dots_between_colons() -> None:
    opt: dict[str, Any] = {}
    force_options(opt, ["val:metrics:v1.0:type=calculate_psnr", "a.b.c=1.5"])
    assert opt == {"val": {"metrics": {"v1.0": {"type": "calculate_psnr"}}}, "a": {"b": {"c": 1.5}}}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("a", "key:subkey=value"),
        ("=1", "key:subkey"),
        ("a..b=1", "key:subkey"),
        ("a:b=1", "a is a value"),
        ("a.b=1", "a is a value"),
        ("c=[1", "YAML"),
    ],
)
def test_force_yml_names_what_is_wrong(entry: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        force_options({"a": 1}, [entry])


def test_option_files_hold_no_code(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text("name: !!python/object/apply:os.system ['true']")
    with pytest.raises(UserError, match="not a YAML file"):
        load_options(path)


def test_numbers_are_those_that_everybody_means(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text("lr: 5e-4\nbetas: [.9, 1e-1]\nname: e5\n")
    assert load_options(path, ["lr=1e-3"]) == {"lr": 1e-3, "betas": [0.9, 0.1], "name": "e5"}


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "No such file"), ("", "has no keys"), ("a: [1", "not a YAML file"), ("name: x", "model_type is missing")],
)
def test_bad_option_files(workplace: Path, capsys: pytest.CaptureFixture[str], text: str | None, message: str) -> None:
    if text is not None:
        Path("bad.yml").write_text(text)
    with pytest.raises(SystemExit) as stop:
        basicsr_command(["train", "-opt", "bad.yml"])
    errors = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(errors) == 1 and message in errors[0]


def test_what_an_alias_repeats_is_a_section_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("train: {optim_g: &adam {type: Adam, lr: 1e-3}, optim_d: *adam}\n")
    train = load_options(tmp_path / "a.yml")["train"]
    train["optim_g"].pop("type")
    assert train["optim_d"] == {"type": "Adam", "lr": 1e-3}


LAYERS = [f"a{layer}: &a{layer} [{', '.join([f'*a{layer - 1}'] * 9)}]" for layer in range(1, 9)]


@pytest.mark.parametrize("text", ["a: &a [*a]", "\n".join(["a0: &a0 [x]", *LAYERS])], ids=["itself", "many"])
def test_aliases_without_end_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(text)
    with pytest.raises(UserError, match="its aliases repeat more than"):
        load_options(tmp_path / "a.yml")
