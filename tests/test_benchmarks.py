"""Benchmarks of time and memory: each part stands by itself, and what they measure is what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from basicsr.archs.rrdbnet_arch import RRDBNet

from benchmarks import _measure, explain, gpu, peers
from tests.helpers import ROOT, perturb, run, small_network

SIZES = {"num_feat": 8, "num_block": 2, "num_grow_ch": 4}
QUICK = ["--device", "cpu", "--quick"]


def test_the_copy_of_rrdbnet_is_rrdbnet() -> None:
    copy, theirs = perturb(_measure.RRDBNet(**SIZES)), RRDBNet(3, 3, **SIZES)
    theirs.load_state_dict(copy.state_dict())
    lq = torch.rand(1, 3, 5, 6)
    torch.testing.assert_close(copy(lq), theirs(lq))


def test_ratios_are_those_of_a_round() -> None:
    assert _measure.ratios({"RRDBNet": [1.0, 2.0, 4.0], "ours": [3.0, 4.0, 2.0]}) == {
        "RRDBNet": (1.0, 1.0, 1.0),
        "ours": (2.0, 0.5, 3.0),
    }


# -- beside other networks ---------------------------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Parts, sizes and rounds that were asked for, in place of seconds."""
    asked: list[tuple[str, int, int]] = []

    def timed(part: str, size: int, rounds: int, device: str) -> peers.Figures:
        asked.append((part, size, rounds))
        xs = [str(size)] if part == "networks" else ["1", "2"]
        return {name: {x: [1.0, 3.0, 2.0] for x in xs} for name in ("RRDBNet", "ours, float32, 10 samples")}

    monkeypatch.setattr(peers, "timed", timed)
    monkeypatch.setattr(peers, "memory", lambda size, device: {peers.NOTHING: 0.25, "RRDBNet": 0.75})
    return asked


def test_parts_add_up_and_another_size_begins_anew(measured: list[tuple[str, int, int]], tmp_path: Path) -> None:
    for parts in (["networks", "pixels"], ["memory"], ["samples"]):
        results = peers.measure(parts, 64, 3, "cpu", tmp_path)
    assert measured == [("networks", 64, 3), ("pixels", 64, 2), ("samples", 64, 3)]
    assert results.keys() == {"settings", "networks", "pixels", "memory", "samples"}
    assert json.loads((tmp_path / "peers.json").read_text()) == results
    page = (tmp_path / "peers.md").read_text()
    assert "| ours, float32, 10 samples | 2.000 | 1.00 (1.00 - 1.00) | 10 | 0.200 |" in page
    assert "| RRDBNet | 2.000 | 1.00 (1.00 - 1.00) | 1 | 2.000 | 0.75 |" in page
    assert "| seconds; samples of one image | 1 | 2 |" in page and (tmp_path / "peers.png").stat().st_size > 10_000
    docs = tmp_path / "page.md"
    (tmp_path / "pictures").mkdir()
    docs.write_text(f"before\n\n{peers.MARKS[0]}\nold\n{peers.MARKS[1]}\n\nafter\n")
    for _ in range(2):
        peers.put_on_page(docs, results)
    assert docs.read_text() == f"before\n\n{peers.MARKS[0]}\n\n{peers.tables(results)}\n{peers.MARKS[1]}\n\nafter\n"
    assert (tmp_path / "pictures" / "peers.png").exists()
    assert peers.measure(["steps"], 32, 3, "cpu", tmp_path).keys() == {"settings", "steps"}


def test_sizes_that_windows_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    output = run(sys.executable, "-m", "benchmarks.peers", "out", "--size", "72", code=2)
    assert "--size must be a multiple of 16, not 72" in output


def test_every_part_has_contestants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.Peer, "on", lambda self, device, side: lambda: None)
    for part in peers.AXES:
        names, xs = zip(*((name, x) for name, x, _ in peers.contestants(part, 16, "cpu")), strict=True)
        assert len(set(names)) >= 2 and (len(set(xs)) >= 2 or part == "threads")
    assert not list(peers.contestants("threads", 16, "cuda"))


@pytest.mark.slow
def test_contestants_draw(tmp_path: Path) -> None:
    for name, _, call in peers.contestants("networks", 16, "cpu"):
        assert name in peers.PEERS and call() is None
    assert 0.1 < peers.peak_of("bicubic", 16, "cpu") < 100


# -- what waits for a GPU ----------------------------------------------------------------------------------------------


def stand_in(answers: dict[str, Any]) -> Any:
    """Answer in place of the processes of parts: by return code, standard output and error, or an exception."""

    def answer(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        result = answers[command[command.index("--part") + 1]]
        if isinstance(result, Exception):
            raise result
        return subprocess.CompletedProcess(command, *result)

    return answer


def test_a_part_that_fails_ends_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {
        "machine": (0, 'words of a library\n[["gpu", "a card"]]\n', ""),
        "exactness": (1, "", "Traceback ...\nRuntimeError: CUDA error: an illegal memory access was encountered\n"),
        "seeds": subprocess.TimeoutExpired("seeds", 60),
        "waits": (-9, "", ""),
        "sampling": (0, '[["RRDBNet", 12.3456, 1.0]]', ""),
    }
    monkeypatch.setattr(subprocess, "run", stand_in(answers))
    assert not gpu.run_all(list(answers), [], 10, tmp_path)
    page, said = (tmp_path / "gpu.md").read_text(), capsys.readouterr().out
    for line in (
        "| gpu | a card |",
        "Not measured: RuntimeError: CUDA error: an illegal memory access was encountered",
        "Not measured: it takes longer than 60 s",
        "Not measured: it ended with -9",
        "| RRDBNet | 12.3 | 1 |",
    ):
        assert line in page.splitlines() and line in said.splitlines()
    assert json.loads((tmp_path / "gpu.json").read_text()).keys() == answers.keys()


def test_a_part_without_time_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(subprocess, "run", stand_in({"waits": (0, "[]", "")}))
    assert not gpu.run_all(["machine", "waits"], [], 50 / 60, tmp_path)
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert "60 s, and 50 s are left" in results["machine"]["fault"] and results["waits"]["rows"] == []


@pytest.mark.slow
def test_every_part_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    output = run(sys.executable, "-m", "benchmarks.gpu", tmp_path, *QUICK)
    assert "Not measured" not in output
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert results.keys() == gpu.PARTS.keys()
    for name, part in gpu.PARTS.items():
        assert {len(row) for row in results[name]["rows"]} <= {len(part.columns), 2}, name
    assert {row[1] for row in results["waits"]["rows"]} == {"does not wait"}
    assert results["seeds"]["rows"][0] == ["again", 0.0, 0.0]


# -- the pictures of the explanation -----------------------------------------------------------------------------------


def test_the_pictures_of_the_explanation_are_drawn_of_any_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(explain, "load_network", lambda name: small_network(log_scale_bound=0.2))
    monkeypatch.setattr(explain, "SIDE", 32)
    monkeypatch.setattr(explain, "SAMPLES", 2)
    monkeypatch.setattr(sys, "argv", ["explain", str(tmp_path)])
    explain.main()
    assert {path.name for path in tmp_path.iterdir()} == {
        "explain_network.png",
        "explain_latents.png",
        "explain_temperatures.jpg",
        "explain_likelihood.png",
    }
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("| photograph |")]
    latents, likelihood = rows[:-1], rows[-1]
    assert len(latents) == len(small_network().latent_shapes(8, 8))
    assert float(likelihood[2]) > float(likelihood[1])  # a code length is larger than the NLL
