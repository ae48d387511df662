"""The documentation keeps up with the code, and the code with the house's English."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import CLONE

pytestmark = CLONE
ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    path for folder in ("srflow_plugin", "benchmarks", "recipes") for path in sorted((ROOT / folder).rglob("*.py"))
]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), ROOT / "datasets" / "README.md"]
WIDTH = 120


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "name", path.stem), text


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_begin_with_a_noun_or_a_verb(path: Path) -> None:
    begins = re.compile(r"(What|Whether|Where|How|Of|Which|When)\b")
    assert [(name, text.splitlines()[0]) for name, text in docstrings(path) if begins.match(text)] == []


def test_every_module_stands_in_the_map() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    words = set(re.findall(r"\w+", page))
    modules = [path for path in sorted((ROOT / "srflow_plugin").rglob("*.py")) if path.name != "__init__.py"]
    assert [str(path.relative_to(ROOT)) for path in modules if path.stem not in words] == []


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith(("http:", "https:", "mailto:")):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_paths_that_the_pages_name_are_there() -> None:
    pattern = re.compile(r"`((?:srflow_plugin|benchmarks|recipes|tests|options|docs)/[\w./-]+)`")
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue
        for target in pattern.findall(page.read_text()):
            assert (ROOT / target.rstrip("/")).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_markdown_is_wrapped() -> None:
    for page in PAGES:
        in_code = False
        for number, line in enumerate(page.read_text().splitlines(), start=1):
            in_code ^= line.startswith(("```", "~~~"))
            is_free = in_code or line.startswith(("|", "![", "```", "<")) or len(line.split()) < 3
            assert is_free or len(line) <= WIDTH, f"{page.relative_to(ROOT)}:{number} has {len(line)} columns"
