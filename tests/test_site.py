"""The documentation site: built without a warning, every page within reach, every link with an end."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

import srflow_plugin
from srflow_plugin.cli.main import PROGRAMS, make_parser
from tests.helpers import ROOT

for needed in ("sphinx", "myst_parser", "furo", "sphinx_copybutton", "sphinx_design"):
    pytest.importorskip(needed, reason='the site needs pip install -e ".[docs]"')

pytestmark = pytest.mark.slow
SPHINX = ("genindex.html", "py-modindex.html", "search.html")
NETWORK = ("forward", "encode", "decode", "sample", "latent_shapes", "code_length")


class Page(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors.add(values.get("id") or "")
        if tag == "a" and values.get("href"):
            self.links.append(values["href"] or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    built = subprocess.run(
        [*command, "-d", str(folder / "trees"), "docs", str(folder / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (built.returncode, built.stderr) == (0, "")
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    written = (path for path in site.rglob("*.html") if path.name not in SPHINX and "_static" not in path.parts)
    return {path: Page(path) for path in written}


def internal(page: Path, links: list[str]) -> Iterator[tuple[Path, str]]:
    """Resolve the links of a page that lead to this site."""
    for link in links:
        if not re.match(r"[a-z]+:", link):
            name, _, anchor = link.partition("#")
            yield (page.parent / name).resolve() if name else page, anchor


def test_every_page_is_within_reach_of_the_index(site: Path, pages: dict[Path, Page]) -> None:
    seen = {site / "index.html"}
    waiting = deque(seen)
    while waiting:
        page = waiting.popleft()
        new = {target for target, _ in internal(page, pages[page].links) if target in pages} - seen
        seen |= new
        waiting.extend(new)
    assert seen == set(pages)
    written = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in ROOT.glob("docs/**/*.md")}
    assert {path.relative_to(site) for path in pages} == written


def test_every_link_and_anchor_leads_somewhere(pages: dict[Path, Page]) -> None:
    lost = [
        (page.name, target.name, anchor)
        for page in pages
        for target, anchor in internal(page, pages[page].links)
        if not target.exists() or (anchor and target in pages and anchor not in pages[target].anchors)
    ]
    assert lost == []


def test_every_command_and_option_stands_in_the_reference(site: Path) -> None:
    page = Page(site / "reference" / "cli.html")
    for program in ("basicsr", "srflow"):
        parsers = next(a for a in make_parser(program)._actions if isinstance(a, argparse._SubParsersAction))
        for command in PROGRAMS[program][1]:
            assert f"{program}-{command}" in page.anchors
            options = [name for action in parsers.choices[command]._actions for name in action.option_strings]
            for option in {*options} - {"-h", "--help"}:
                assert f"cmdoption-{program}-{command}-{option.lstrip('-')}" in page.anchors, option


def test_every_public_name_stands_in_the_reference(site: Path) -> None:
    page = Page(site / "reference" / "python.html")
    names = [*srflow_plugin.__all__, *(f"SRFlowNet.{method}" for method in NETWORK)]
    missing = [name for name in names if f"srflow_plugin.{name}" not in page.anchors]
    assert missing == ["__version__"]
