"""Tables with their protocol, published rows beside them, figures."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from srflow_plugin.images.files import read_image, write_image
from srflow_plugin.leaderboard import report as report_module
from srflow_plugin.leaderboard.check import with_files
from srflow_plugin.leaderboard.draw import Method, Settings, fingerprint
from srflow_plugin.leaderboard.records import Records
from srflow_plugin.leaderboard.report import _line, protocol, published_rows, write_report
from srflow_plugin.leaderboard.sets import BenchmarkSet, Pair
from tests.helpers import ROOT, noise_image

SETTINGS = Settings(
    seed=3, resample=0.8, distance="lpips", net="alex", lr_border="symmetric", tile=None, niqe=False, device="cpu"
)
SCORES = {"psnr": 20.0, "ssim": 0.5, "psnr_y": 21.0, "ssim_y": 0.6, "distance": 0.25, "lr_psnr": 40.0}


def test_a_row_says_how_it_was_made(tmp_path: Path) -> None:
    checkpoint = tmp_path / "net.pth"
    checkpoint.write_bytes(b"weights")
    common = "RGB border 0, Y border = scale, 8 bit files, LR symmetric"
    assert protocol(Method("bicubic"), SETTINGS) == common
    sampled = protocol(Method("net tau 0.9", 0.9, 10, checkpoint), SETTINGS)
    assert sampled == f"{common}, tau 0.9, 10 samples, seed 3, resample 0.8, sha256 {fingerprint(checkpoint)}"
    by_place = protocol(Method("net tau 0.9", 0.9, 10, checkpoint), SETTINGS._replace(adaptive=0.5))
    assert by_place == sampled.replace("seed 3", "seed 3, adaptive 0.5")
    theirs = Method("theirs", source=tmp_path, draws=False)
    assert protocol(theirs, SETTINGS) == f"{common}, files of {tmp_path}"


@pytest.fixture
def report(tmp_path: Path) -> str:
    """The table of two images of DIV2K by bicubic upscaling and another method."""
    return make_report(tmp_path)


def make_report(tmp_path: Path) -> str:
    pairs = []
    for number in range(2):
        pair = Pair(number, tmp_path / f"{number}.png", tmp_path / f"{number}x4.png")
        write_image(pair.hr, noise_image(80, 72, number))
        write_image(pair.lr, noise_image(20, 18, number))
        pairs.append(pair)
    theirs, ours = tmp_path / "theirs", tmp_path / "images" / "DIV2K_valid" / "bicubic"
    sets = [BenchmarkSet("DIV2K_valid", pairs, scale=4)]
    methods = [Method("bicubic"), Method("theirs", source=theirs, draws=False)]
    drawn, scores = Records(tmp_path / "drawn.jsonl"), Records(tmp_path / "scores.jsonl")
    ours.mkdir(parents=True, exist_ok=True)
    theirs.mkdir(exist_ok=True)
    for pair in pairs:
        write_image(ours / f"{pair.number:06d}_sample00000.png", noise_image(80, 72, 9))
        for sample in range(2):
            write_image(theirs / f"{pair.number}_{sample}.png", noise_image(80, 72, 10 + sample))
        drawn.add("DIV2K_valid", "bicubic", pair.hr.name, {"exploded": 1 + pair.number, "seconds": 0.5})
        for method in methods:
            scores.add("DIV2K_valid", method.name, pair.hr.name, {**SCORES, "psnr": 20.0 + pair.number})
    methods = [with_files(method, sets) for method in methods]
    return write_report(tmp_path, sets, methods, SETTINGS, drawn, scores)


def test_rows_are_means_or_sums_over_images(report: str, tmp_path: Path) -> None:
    lines = [[cell.strip() for cell in line.split("|")] for line in report.splitlines()]
    assert report.startswith("## DIV2K_valid, 2 images\n")
    header, bicubic, theirs = lines[2], lines[4], lines[5]
    row = dict(zip(header, bicubic, strict=True))
    assert (row["PSNR"], row["LPIPS alex"], row["exploded samples"], row["s/image"]) == ("20.50", "0.2500", "3", "0.50")
    assert dict(zip(header, theirs, strict=True))["exploded samples"] == ""
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [(row["method"], row["images"], row["psnr"]) for row in summary] == [
        ("bicubic", 2, 20.5),
        ("theirs", 2, 20.5),
    ]
    with (tmp_path / "per_image.csv").open() as file:
        assert [row["psnr"] for row in csv.DictReader(file)] == ["20.0", "21.0"] * 2


PAPERS = ["RRDB (L1)", "ESRGAN", "SRFlow tau 0.9", "SRFlow tau 0", "HCFlow", "HCFlow++", "NCSR"]


@pytest.mark.parametrize(
    ("name", "images", "scale", "methods"),
    [
        ("DIV2K", 100, 4, PAPERS),
        ("DIV2K_valid_HR", 100, 4, PAPERS),
        ("div2k", 100, 8, []),
        ("DIV2K", 99, 4, []),
        ("DIV2K", 800, 4, []),
        ("DIV2K_train", 100, 4, []),
        ("Set5", 5, 4, ["bicubic"]),
        ("set5_ours", 5, 4, ["bicubic"]),
        ("Set5", 3, 4, []),
        ("Set5", 5, 2, []),
        ("Set50", 5, 4, []),
        ("Set14", 14, 4, ["bicubic"]),
        ("Set14", 5, 4, []),
        ("BSD100", 100, 4, ["bicubic"]),
        ("B100", 100, 4, ["bicubic"]),
        ("BSD100", 100, 8, []),
        ("Urban100", 100, 4, ["bicubic"]),
        ("mine", 100, 4, []),
    ],
)
def test_published_rows_are_of_the_same_images(name: str, images: int, scale: int, methods: list[str]) -> None:
    pairs = [Pair(number, Path(f"{number}.png"), Path(f"{number}x4.png")) for number in range(images)]
    rows = published_rows(BenchmarkSet(name, pairs, scale), SETTINGS, 10)
    assert [row.method for row in rows] == methods


@pytest.mark.parametrize(
    ("change", "num_samples", "missing"),
    [
        ({}, 10, set()),
        ({}, 1, set()),
        ({}, 3, {"diversity"}),
        ({"net": "vgg"}, 10, {"distance", "diversity"}),
        ({"distance": "stlpips"}, 10, {"distance", "diversity"}),
        ({"lr_border": "replicate"}, 10, {"lr_psnr"}),
    ],
)
def test_published_numbers_are_measured_in_the_same_way(
    change: dict[str, Any], num_samples: int, missing: set[str]
) -> None:
    pairs = [Pair(0, Path("a.png"), Path("a.png"))] * 100
    rows = published_rows(BenchmarkSet("DIV2K", pairs, 4), SETTINGS._replace(**change), num_samples)
    assert rows[2].method == "SRFlow tau 0.9"
    assert {"psnr", "ssim", "distance", "lr_psnr", "diversity"} - rows[2].values.keys() == missing


def test_published_numbers_stand_in_the_documentation() -> None:
    page = (ROOT / "docs" / "reference" / "published_numbers.md").read_text(encoding="utf-8")
    rows = {tuple(re.findall(r"[^|\s][^|]*[^|\s]|[^|\s]", line.lower())) for line in page.splitlines()}
    cells = {(name, *map(float, numbers)) for name, *numbers in filter(None, rows) if _are_numbers(numbers)}
    for row in report_module.PUBLISHED:
        of_set = (row.dataset.replace("(bsds?|b)", "bsd"), row.images)
        assert (*(of_set if row.method == "bicubic" else (row.method.lower(),)), *row.values.values()) in cells, row


def _are_numbers(cells: list[str]) -> bool:
    return bool(cells) and all(re.fullmatch(r"[\d.]+", cell) for cell in cells)


def test_published_rows_are_told_from_ours(report: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "*published" not in report  # of two images
    monkeypatch.setattr(report_module, "PUBLISHED", [row._replace(images=2) for row in report_module.PUBLISHED])
    (row,) = (line for line in make_report(tmp_path).splitlines() if line.startswith("| *SRFlow tau 0.9*"))
    assert "27.08" in row and "49.96" in row and row.endswith("| *published: x4, RGB, border 0, LPIPS AlexNet, S10* |")


def test_figures(report: str, tmp_path: Path) -> None:
    figures = tmp_path / "figures"
    names = {"DIV2K_valid_curves.png", "DIV2K_valid_000000.png", "DIV2K_valid_000001.png"}
    assert {path.name for path in figures.iterdir()} == names
    assert read_image(figures / "DIV2K_valid_000001.png").shape[0] > 80


def test_no_name_forges_a_cell_or_a_row() -> None:
    assert _line(["a | b", "c\n| d |", "\x1b[31m"]) == "| a \\| b | c\\n\\| d \\| | \\x1b[31m |"
