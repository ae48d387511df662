"""What clusters and users do, in small; the scripts beside this file do more of it."""

from __future__ import annotations

import sys

import pytest

from tests.helpers import ROOT, run

SCRIPTS = [
    *("fuzz --cases 70 --seed 7", "fuzz --kinds hostile --cases 60", "torture --kills 2"),
    *("bitflips --flips 25", "crafted --cases 24", "page_calls --calls 60"),
]


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_what_clusters_and_users_do(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    name, *arguments = script.split()
    run(sys.executable, "-m", f"tests.stress.{name}", *arguments, timeout=900)
