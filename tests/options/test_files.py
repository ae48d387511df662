"""Option files and --force_yml: what is read, and what is said when it cannot be."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from srflow_plugin.cli.main import basicsr_command
from srflow_plugin.errors import UserError
from srflow_plugin.options.check import check_file
from srflow_plugin.options.files import force_options, load_options
from tests.helpers import TINY, UNIX


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


NINE = "[*x, *x, *x, *x, *x, *x, *x, *x, *x]"
NOT_OPTIONS: dict[str, tuple[str, str]] = {
    "a key twice": ("lr: 1e-3\na: b\nlr: 0.5\n", "a.yml: lr stands twice, in lines 1 and 3; leave one out"),
    "a key twice, deep": ("a:\n  b:\n    - {c: 1,\n       c: 2}\n", "c stands twice, in lines 3 and 4"),
    "a key twice, quoted": ("'a': 1\n\"a\": 2\n", "a stands twice, in lines 1 and 2"),
    "a key twice beside a merge": ("x: &x {a: 1}\ny:\n  <<: *x\n  b: 1\n  b: 2\n", "b stands twice, in lines 4 and 5"),
    "no name": ("a:\n  5: x\n", "a.yml, line 2: the key '5' is no name; put it in quotes"),
    "a list for a key": ("a: {[1, 2]: x}\n", "is no name; put it in quotes"),
    "yes for a key": ("on: x\n", "line 1: the key 'on' is no name; put it in quotes"),
    "a line in a key": ('"a\\nb": x\n', r"line 1: the key 'a\nb' is no name"),
    "a colour in a key": ('"a\\e[31mb": x\n', r"the key 'a\x1b[31mb' is no name"),
    "another direction in a key": ('"a\\u202eb": x\n', r"the key 'a\u202eb' is no name"),
    "a long key": ("a" * 201 + ": x\n", "is no name"),
    "no key": ("'': x\n", "the key '' is no name"),
    "nested lists": ("a: " + "[" * 500 + "]" * 500, "nested too deeply"),
    "nested sections": ("a: " + "{a: " * 500 + "1" + "}" * 500, "nested too deeply"),
    "deep lists": ("a: " + "[" * 60 + "]" * 60, "line 1: its sections are nested too deeply"),
    "nested without an end": ("a: " + "[" * 100_000, "nested too deeply"),
    "itself": ("a: &a {b: *a}", "its aliases repeat more than"),
    "texts": ("x: &x " + "a" * 200_000 + f"\ny: {NINE}", "its aliases repeat more than"),
    "merges": ("x: &x {a: 1}\n" + "y: {<<: [" + "*x, " * 9000 + "*x]}", "its aliases repeat more than"),
    "many digits": ("a: " + "9" * 5000, "too long for a number"),
    "400 digits": ("a: " + "9" * 400, "too long for a number"),
    "hexadecimal digits": ("a: 0x" + "f" * 5000, "too long for a number"),
    "minutes": ("a: 1" + ":59" * 5000, "too long for a number"),
    "minutes and seconds": ("a: 1" + ":59" * 5000 + ".5", "too long for a number"),
    "2^63": ("a: 9223372036854775808", "'9223372036854775808' in line 1 is too large for a number"),
    "0b_": ("a: 0b_", "is not a YAML file"),
    "an empty number": ("a: !!int ''", "is not a YAML file"),
    "no number": ("a: !!float 'x'", "is not a YAML file"),
    "an invalid date": ("a: !!timestamp 2001-99-99", "is not a YAML file"),
    "an unknown alias": ("a: *b", "is not a YAML file"),
    "two files": ("a: 1\n---\nb: 2\n", "is not a YAML file"),
    "binary": ("a: !!binary 'abc'", "is not a YAML file"),
    "a large file": ("a: " + "b" * 2**20, "it has more than 1,048,576 bytes"),
    "no text": ("a: \0", "is not a YAML file"),
}


@pytest.mark.parametrize("kind", NOT_OPTIONS)
def test_what_no_option_file_holds_is_refused_at_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, message = NOT_OPTIONS[kind]
    monkeypatch.chdir(tmp_path)
    Path("a.yml").write_text(text)
    tracemalloc.start()
    with pytest.raises(UserError) as told:
        load_options(Path("a.yml"))
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()
    assert message in str(told.value) and len(str(told.value)) < 500 and "\n" not in str(told.value)


def test_merges_may_be_overridden_and_dates_are_texts(tmp_path: Path) -> None:
    lines = [
        "base: &base {<<: &first {a: 1, b: 1}, b: 2}",
        "more: {<<: *base, b: 3}",
        "name: 2001-99-99",
        "day: 2001-01-02",
    ]
    (tmp_path / "a.yml").write_text("\n".join([*lines, "both: {<<: [*first, *base], c: 1}", "hour: 1:30"]))
    opt = load_options(tmp_path / "a.yml")
    assert (
        opt["base"] == {"a": 1, "b": 2} and opt["more"] == {"a": 1, "b": 3} and opt["both"] == {"a": 1, "b": 1, "c": 1}
    )
    assert opt["name"] == "2001-99-99" and opt["day"] == "2001-01-02" and opt["hour"] == 90


@UNIX
@pytest.mark.parametrize("kind", ["fifo", "/dev/zero", "folder", "loop"])
def test_option_files_are_files(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(kind if kind != "loop" else "a.yml")
    with pytest.raises(UserError, match=r"is not a file, but a device|is a folder; give a file|symbolic links"):
        load_options(path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("a=" + "[" * 5000, "nested too deeply"),
        ("a=" + "9" * 5000, "too long for a number"),
        ("a={b: 1, b: 2}", "b stands twice"),
        ("a\x1b[31m:b=1", "names no option"),
        ("a" * 300 + "=1", "names no option"),
        ("a={1: 2}", "is no name; put it in quotes"),
        ("a=" + "b" * 10**6 + ": [", "is not a YAML value"),
    ],
)
def test_force_yml_entries_are_looked_over_likewise(entry: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as told:
        force_options({}, [entry])
    assert len(str(told.value)) < 800


SECRETS = ["api_key", "API_KEY", "apikey", "wandb_api_key", "token", "hf_token", "password", "secret", "client_secret"]


@pytest.mark.parametrize("key", SECRETS)
@pytest.mark.parametrize("where", ["logger.wandb", "train.gan_opt", "datasets.val"])
def test_secrets_are_refused_and_never_shown(key: str, where: str) -> None:
    with pytest.raises(UserError, match=f"{where}.{key} would stand in the log") as told:
        load_options(TINY, [f"{where}={{project: a, {key}: s3cr3t}}"])
    assert "s3cr3t" not in str(told.value) and ("WANDB_API_KEY" in str(told.value)) == ("wandb" in where)
    for entry in (f"{where}.{key}=[s3cr3t", f":{key}=s3cr3t", f"name:{key}=s3cr3t"):
        with pytest.raises(UserError) as told:
            load_options(TINY, [entry])
        assert "s3cr3t" not in str(told.value)
    assert load_options(TINY, ["network_g.token=false", "network_g.num_tokens=5", "network_g.api_key=~"])


def test_keys_of_wandb_are_known() -> None:
    check_file(load_options(TINY, ["logger.wandb={project: a, resume_id: ~}"]), is_train=True)
    with pytest.raises(UserError, match=r"logger\.wandb\.projekt is no option; did you mean project\?"):
        check_file(load_options(TINY, ["logger.wandb={projekt: a}"]), is_train=True)
    with pytest.raises(UserError, match=r"logger\.wandb\.config is no option"):
        check_file(load_options(TINY, ["model_type=SRModel", "logger.wandb={config: a}"]), is_train=True)
    with pytest.raises(UserError, match=r"logger\.wandb\.project: \['a'\] is not text or none"):
        check_file(load_options(TINY, ["logger.wandb={project: [a]}"]), is_train=True)
