"""The workflow of the usual hosting: it runs what .ci/run runs, on every system and Python that the package is for."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.helpers import ROOT


def commands(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_every_python_and_system_has_the_fast_tests() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))["jobs"]
    matrix = jobs["fast"]["strategy"]["matrix"]
    classifiers = re.findall(r"Python :: (3\.\d+)", (ROOT / "setup.py").read_text(encoding="utf-8"))
    assert matrix["python"] == classifiers and {name.split("-")[0] for name in matrix["os"]} == {
        "ubuntu",
        "windows",
        "macos",
    }
    assert 'pytest -m "not slow"' in commands(jobs["fast"]) and 'pip install -e ".[test]"' in commands(jobs["fast"])


def test_style_is_checked_as_ci_does() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))["jobs"]
    for command in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines():
        if command.startswith(("ruff", "mypy")):
            assert command in commands(jobs["style"])
