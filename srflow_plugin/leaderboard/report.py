"""Results of a benchmark: a table with the protocol on every row, numbers for programs, figures."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from srflow_plugin.errors import cell, counted
from srflow_plugin.files import complete_or_absent, write_whole
from srflow_plugin.images.files import write_image
from srflow_plugin.images.pictures import heat_map, in_rows, resized, spread, stacked
from srflow_plugin.leaderboard.calibration import draw_figure, pooled, sentences
from srflow_plugin.leaderboard.check import read_output
from srflow_plugin.leaderboard.draw import Method, Settings, fingerprint, sample_files
from srflow_plugin.leaderboard.records import Records
from srflow_plugin.leaderboard.score import LEVELS
from srflow_plugin.leaderboard.sets import BenchmarkSet, read_pair
from srflow_plugin.sampling.temperature import is_number, label

FIGURES_PER_SET = 3
SAMPLES_IN_FIGURE = 2
ZOOM_SIDE, ZOOM = 64, 3


class Column(NamedTuple):
    """A column of the table: the record's name, the title, digits after the point; over images a mean, or the sum."""

    key: str
    title: str
    digits: int
    is_sum: bool = False


COLUMNS = [
    Column("psnr", "PSNR", 2),
    Column("ssim", "SSIM", 4),
    Column("psnr_y", "PSNR-Y", 2),
    Column("ssim_y", "SSIM-Y", 4),
    Column("distance", "{distance}", 4),
    Column("lr_psnr", "LR-PSNR", 2),
    Column("diversity", "S", 2),
    Column("pixel_std", "std", 2),
    Column("psnr_best", "best PSNR", 2),
    Column("psnr_mean_image", "PSNR of mean", 2),
    Column("niqe", "NIQE", 2),
    Column("crps", "CRPS", 3),
    Column("energy_score", "energy score", 3),
    *(Column(f"coverage_{level}", f"in {level} %", 1) for level in LEVELS),
    Column("rmse", "RMSE of mean", 2),
    Column("predicted_rmse", "predicted RMSE", 2),
    Column("code_length", "bits/dim of 8 bit HR", 3),
    Column("exploded", "exploded samples", 0, True),
    Column("nonfinite", "values not finite", 0, True),
    Column("seconds", "s/image", 2),
]
PARTS = [  # of the time, and what is left out of a table of results
    Column("encoder_seconds", "encoder, once for all temperatures", 3),
    Column("network_seconds", "flow, all samples, or other network", 3),
    Column("code_length_seconds", "code length", 3),
    Column("files_seconds", "files", 3),
    Column("score_seconds", "scores", 3),
]


class Published(NamedTuple):
    """A row of a paper: of which data set, by its name and number of images, x4; what it is called, and its numbers."""

    dataset: str  # a regular expression
    images: int
    method: str
    protocol: str
    values: dict[str, float]


def _div2k(method: str, *values: float | None) -> Published:
    keys = ("psnr", "ssim", "distance", "lr_psnr", "diversity")
    numbers = {key: value for key, value in zip(keys, values, strict=True) if value is not None}
    return Published("div2k(?!.*train)", 100, method, "published: x4, RGB, border 0, LPIPS AlexNet, S10", numbers)


PUBLISHED_SCALE, PUBLISHED_SAMPLES = 4, 10
PUBLISHED = [
    _div2k("RRDB (L1)", 29.48, 0.844, 0.254, 53.72, 0),
    _div2k("ESRGAN", 26.22, 0.75, 0.124, 39.03, 0),
    _div2k("SRFlow tau 0.9", 27.08, 0.756, 0.120, 49.96, 25.26),
    _div2k("SRFlow tau 0", 29.05, 0.829, 0.251, 51.02, None),
    _div2k("HCFlow", 27.02, 0.76, 0.124, None, None),
    _div2k("HCFlow++", 26.61, 0.74, 0.110, None, None),
    _div2k("NCSR", None, None, 0.119, 50.75, 26.72),
    *(
        Published(dataset, images, "bicubic", "published: x4, Y, border 4", {"psnr_y": psnr, "ssim_y": ssim})
        for dataset, images, psnr, ssim in (
            ("set5", 5, 28.42, 0.8104),
            ("set14", 14, 26.00, 0.7027),
            ("(bsds?|b)100", 100, 25.96, 0.6675),
            ("urban100", 100, 23.14, 0.6577),
        )
    ),
]


def write_report(
    folder: Path,
    sets: Sequence[BenchmarkSet],
    methods: Sequence[Method],
    settings: Settings,
    drawn: Records,
    scores: Records,
) -> str:
    """Write table.md, times.md, per_image.csv, summary.json and figures/; return the table."""
    rows = []
    for dataset in sets:
        for method in methods:
            for pair in dataset.pairs:
                key = dataset.name, method.name, pair.hr.name
                rows.append((dataset.name, method, pair.hr.name, {**scores.values[key], **drawn.values.get(key, {})}))
    per_image = folder / "per_image.csv"
    with complete_or_absent(per_image) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["set", "method", "image", *(column.key for column in COLUMNS + PARTS)])
        for name, method, image, values in rows:
            writer.writerow([name, method.name, image, *(values.get(column.key, "") for column in COLUMNS + PARTS)])
    summary = []
    for dataset in sets:
        for method in methods:
            of_row = [values for name, other, _, values in rows if (name, other) == (dataset.name, method)]
            columns = [column for column in COLUMNS + PARTS if all(column.key in values for values in of_row)]
            numbers = {
                key: float((np.sum if is_sum else np.mean)([values[key] for values in of_row]))
                for key, _, _, is_sum in columns
            }
            numbers |= pooled(of_row)
            row = {"set": dataset.name, "images": len(of_row), "method": method.name, "tau": method.temperature}
            summary.append({**row, "samples": method.num_samples, "protocol": protocol(method, settings), **numbers})
    write_whole(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    table = "\n\n".join(_table(dataset, summary, settings) for dataset in sets) + "\n"
    write_whole(folder / "table.md", table)
    write_whole(folder / "times.md", "\n\n".join(_times(dataset.name, summary) for dataset in sets) + "\n")
    (folder / "figures").mkdir(exist_ok=True)
    for dataset in sets:
        _curves(folder, dataset, methods, summary, settings)
        of_set = [row for row in summary if row["set"] == dataset.name]
        draw_figure(folder / "figures" / f"{dataset.name}_calibration.png", of_set, dataset.name)
        for pair in dataset.pairs[:FIGURES_PER_SET]:
            _picture(folder, dataset, methods, pair.number)
    return table


def protocol(method: Method, settings: Settings) -> str:
    """Say how a row's numbers were made."""
    parts = ["RGB border 0, Y border = scale, 8 bit files", f"LR {settings.lr_border}"]
    if method.temperature is not None and method.source is not None:
        parts += [f"tau {label(method.temperature)}, {counted(method.num_samples, 'sample')}, seed {settings.seed}"]
        parts += [f"adaptive {settings.adaptive:g}"] if settings.adaptive is not None else []
        parts += [f"resample {settings.resample:g}"] if settings.resample is not None else []
        parts += [f"sha256 {fingerprint(method.source)}"]
    elif method.source is not None and method.draws:
        parts += [f"sha256 {fingerprint(method.source)} of {method.source.name}"]
    elif not method.draws:
        parts += [f"files of {method.source}"]
    return ", ".join(parts)


def published_rows(dataset: BenchmarkSet, settings: Settings, num_samples: int) -> list[Published]:
    """List the rows of papers that are of the same images, at the same scale, with what is measured in the same way.

    Args:
        dataset: told by its name and its number of images.
        settings: of the rows that they are to be compared with.
        num_samples: of these rows, the most.
    """
    if dataset.scale != PUBLISHED_SCALE:
        return []
    other: set[str] = set()  # numbers that mean something else here
    if (settings.distance, settings.net) != ("lpips", "alex"):
        other |= {"distance", "diversity"}
    if num_samples not in (1, PUBLISHED_SAMPLES):
        other |= {"diversity"}
    if settings.lr_border != "symmetric":
        other |= {"lr_psnr"}
    of_set = (
        row._replace(values={key: value for key, value in row.values.items() if key not in other})
        for row in PUBLISHED
        if row.images == len(dataset.pairs) and re.match(f"{row.dataset}(?![a-z0-9])", dataset.name.lower())
    )
    return [row for row in of_set if row.values]


def _table(dataset: BenchmarkSet, summary: Sequence[dict[str, Any]], settings: Settings) -> str:
    name = dataset.name
    rows = [row for row in summary if row["set"] == name]
    others = published_rows(dataset, settings, max(row["samples"] for row in rows))
    columns = [column for column in COLUMNS if any(column.key in row for row in rows)]
    title = f"{settings.distance.upper()} {settings.net}"
    header = ["method", *(column.title.format(distance=title) for column in columns), "protocol"]
    lines = [f"## {name}, {counted(rows[0]['images'], 'image')}", "", _line(header), _line(["---"] * len(header))]
    for row in rows:
        lines.append(
            _line([row["method"], *(_number(row.get(key), digits) for key, _, digits, _ in columns), row["protocol"]])
        )
    for published in others:
        numbers = [_number(published.values.get(key), digits) for key, _, digits, _ in columns]
        lines.append(_line([f"*{published.method}*", *numbers, f"*{published.protocol}*"]))
    said = sentences(rows, title)
    lines += ["", *said] if said else []
    return "\n".join(lines)


def _times(name: str, summary: Sequence[dict[str, Any]]) -> str:
    """List seconds per image by part."""
    lines = [
        f"## {name}, seconds per image",
        "",
        _line(["method", *(column.title for column in PARTS)]),
        _line(["---"] * 6),
    ]
    for row in summary:
        if row["set"] == name:
            lines.append(_line([row["method"], *(_number(row.get(column.key), column.digits) for column in PARTS)]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(cell, cells))} |"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _curves(
    folder: Path,
    dataset: BenchmarkSet,
    methods: Sequence[Method],
    summary: Sequence[dict[str, Any]],
    settings: Settings,
) -> None:
    """Draw distance against PSNR, and LR-PSNR against temperature."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in summary if row["set"] == dataset.name]
    family_of = {method.name: method.family for method in methods if method.temperature is not None}
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    for family in dict.fromkeys(family_of.values()):
        of_family = (row for row in rows if family_of.get(row["method"]) == family and is_number(row["tau"]))
        curve = sorted(of_family, key=lambda row: row["tau"])
        left.plot([row["psnr"] for row in curve], [row["distance"] for row in curve], "o-", label=family)
        for row in curve:
            left.annotate(f"{row['tau']:g}", (row["psnr"], row["distance"]), textcoords="offset points", xytext=(4, 4))
        right.plot([row["tau"] for row in curve], [row["lr_psnr"] for row in curve], "o-", label=family)
    for row in rows:
        if not is_number(row["tau"]):
            left.plot(row["psnr"], row["distance"], "s", label=row["method"])
            right.axhline(row["lr_psnr"], linestyle=":", color="grey")
            right.annotate(row["method"], (0, row["lr_psnr"]), textcoords="offset points", xytext=(0, 3))
    left.set(
        xlabel="PSNR (RGB, dB)",
        ylabel=f"{settings.distance.upper()} ({settings.net})",
        title=f"{dataset.name}; temperatures beside the points",
    )
    right.set(xlabel="temperature", ylabel="LR-PSNR (dB)", title="agreement with the LR image")
    left.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(folder / "figures" / f"{dataset.name}_curves.png", dpi=110)
    plt.close(figure)


def _picture(folder: Path, dataset: BenchmarkSet, methods: Sequence[Method], number: int) -> None:
    """Draw all methods' samples of an image side by side, a crop enlarged below, and maps of where samples differ."""
    pair = dataset.pairs[number]
    pictures = read_pair(pair)
    gt = pictures.gt
    columns, maps = [("LR", pictures.lq)], []
    for method in methods:
        samples = [read_output(file, pictures) for file in sample_files(folder, dataset, method, pair)]
        columns += [(method.name, sample) for sample in samples[:SAMPLES_IN_FIGURE]]
        if len(samples) > 1:
            maps.append((f"std, {method.name}", heat_map(spread(samples), "grey levels")))
    columns.append(("GT", gt))
    path = folder / "figures" / f"{dataset.name}_{number:06d}.png"
    crops = [(title, _zoomed(image, gt)) for title, image in columns]
    side = crops[-1][1].shape[0]
    rows = [*in_rows(columns, gt.shape[0]), *in_rows(crops, side)]
    write_image(path, stacked(rows + (in_rows(maps, maps[0][1].shape[0]) if maps else [])))


def _zoomed(image: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """Enlarge the place of the image where the ground truth has most detail."""
    grey = cv2.cvtColor(gt, cv2.COLOR_RGB2GRAY).astype(np.float32)
    side = min(ZOOM_SIDE, *gt.shape[:2])
    detail = cv2.boxFilter(np.abs(cv2.Laplacian(grey, cv2.CV_32F)), -1, (side, side), borderType=cv2.BORDER_REFLECT)
    half = side // 2
    inner = detail[half : gt.shape[0] - side + half + 1, half : gt.shape[1] - side + half + 1]
    top, left = np.unravel_index(inner.argmax(), inner.shape)
    crop = resized(image, *gt.shape[:2])[top : top + side, left : left + side]
    return resized(crop, ZOOM * side, ZOOM * side)
