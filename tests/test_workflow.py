"""The workflow of the usual hosting: it runs what .ci/run runs, on every system and Python that the package is for."""

from __future__ import annotations

import re
from typing import Any

import yaml

from srflow_plugin import __version__
from tests.helpers import CLONE, ROOT

pytestmark = CLONE


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


def test_a_release_is_built_checked_tested_and_only_then_published() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))
    jobs = workflow["jobs"]
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads "on" so
    assert jobs["test"]["needs"] == "build" and jobs["publish"]["needs"] == "test"
    tests = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))["jobs"]
    assert {key: jobs["test"]["strategy"]["matrix"][key] for key in ("os", "python")} == {
        key: tests["fast"]["strategy"]["matrix"][key] for key in ("os", "python")
    }
    assert {"python -m build", "twine check --strict dist/*"} <= {*commands(jobs["build"])}
    # Only the job that publishes may do more than read.
    assert workflow["permissions"] == {"contents": "read"}
    assert [name for name, job in jobs.items() if "permissions" in job] == ["publish"]


def test_ci_builds_and_checks_the_distributions_too() -> None:
    lines = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("python -m build ") for line in lines)
    assert any(line.startswith("twine check --strict ") for line in lines)


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    released = re.search(r"^## \[(.+)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert released and (citation["version"], citation["date-released"]) == released.groups()
