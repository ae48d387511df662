"""``srflow benchmark``: draw, score, tell."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from srflow_plugin.benchmark.draw import (
    BenchmarkSet,
    Method,
    Settings,
    checkpoint_methods,
    draw_all,
    find_set,
    fingerprint,
)
from srflow_plugin.benchmark.records import Records
from srflow_plugin.benchmark.report import write_report
from srflow_plugin.benchmark.score import score_all
from srflow_plugin.errors import UserError
from srflow_plugin.metrics.perceptual import perceptual_distance


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of images, tables and figures")
    parser.add_argument(
        "--set",
        nargs=3,
        action="append",
        required=True,
        metavar=("NAME", "HR", "LR"),
        dest="sets",
        help="a data set: its name in tables, its folders of images; may be repeated",
    )
    parser.add_argument("--checkpoint", nargs="+", type=Path, default=[], help="SRFlow networks")
    parser.add_argument(
        "--temperature", nargs="+", type=float, default=[0, 0.9], help="of the samples; default: 0 and 0.9"
    )
    parser.add_argument(
        "--num-samples", type=int, default=10, help="for each image and temperature above 0 (default: 10)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default: 0)")
    parser.add_argument("--resample", type=float, metavar="FACTOR", help="draw places that explode again, e.g. 0.8")
    parser.add_argument("--tile", type=int, help="side of tiles in LR pixels, for large images (default: whole images)")
    parser.add_argument("--bicubic", action="store_true", help="bicubic upscaling as a row")
    parser.add_argument(
        "--network",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "FILE"),
        help="any other network, as an option file's network_g and path.pretrain_network_g say (RRDBNet, SwinIR, ...)",
    )
    parser.add_argument(
        "--images",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "DIR"),
        help="another method's files: in DIR or DIR/SET, 000000_sample00000.png or named as the HR image, and more",
    )
    parser.add_argument(
        "--distance", choices=["lpips", "stlpips"], default="lpips", help="learned distance (default: lpips)"
    )
    parser.add_argument("--net", choices=["alex", "vgg"], default="alex", help="its network (default: alex)")
    parser.add_argument(
        "--lr-border",
        choices=["symmetric", "replicate"],
        default="symmetric",
        help="how the LR images were made; replicate for the common Set5 ... Urban100 files (default: symmetric)",
    )
    parser.add_argument("--niqe", action="store_true", help="NIQE, too, which takes as long as the rest")
    parser.add_argument("--workers", type=int, help="processes that score (default: all cores; on a GPU one)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda, cuda:1")


def run(args: argparse.Namespace) -> None:
    sets = [find_set(name, Path(hr), Path(lr)) for name, hr, lr in args.sets]
    methods = _methods(args)
    settings = Settings(
        args.seed, args.resample, args.distance, args.net, args.lr_border, args.tile, args.niqe, args.device
    )
    perceptual_distance(settings.distance, settings.net)  # says at once if it cannot be had
    args.output.mkdir(parents=True, exist_ok=True)
    drawn, scores = Records(args.output / "drawn.jsonl"), Records(args.output / "scores.jsonl")
    used = {name for key in (*drawn.values, *scores.values) for name in key[:2]}
    _check_same(args.output / "protocol.json", sets, methods, settings, used)
    draw_all(args.output, sets, methods, settings, drawn)
    workers = args.workers or (1 if args.device.startswith("cuda") else os.cpu_count() or 1)
    score_all(args.output, sets, methods, settings, scores, workers)
    sys.stdout.write(write_report(args.output, sets, methods, settings, drawn, scores))
    sys.stdout.write(f"\n{args.output}: table.md, times.md, summary.json, per_image.csv, figures/\n")


def _methods(args: argparse.Namespace) -> list[Method]:
    if (
        min(args.temperature) < 0
        or args.num_samples < 1
        or (args.workers or 1) < 1
        or not 0 <= (args.resample or 0) < 1
    ):
        raise UserError(
            "--temperature must be 0 or more, --num-samples and --workers 1 or more, --resample from 0 to below 1"
        )
    methods = [Method("bicubic")] if args.bicubic else []
    for checkpoint in args.checkpoint:
        methods += checkpoint_methods(_existing(checkpoint), args.temperature, args.num_samples)
    methods += [Method(name, source=_existing(file)) for name, file in args.network]
    methods += [Method(name, source=Path(folder), draws=False) for name, folder in args.images]
    if not methods:
        raise UserError("nothing to compare: give --checkpoint, --network, --images or --bicubic")
    for kind, names in (("method", [m.name for m in methods]), ("data set", [name for name, _, _ in args.sets])):
        name, count = Counter(names).most_common(1)[0]
        if count > 1:
            raise UserError(f"two {kind}s are called {name!r}; give each a name of its own")
        bad = next((name for name in names if set(name) & set("/\\") or not name.strip(". ")), None)
        if bad is not None:
            raise UserError(f"{kind} {bad!r}: a plain name is needed, without /")
    return methods


def _existing(file: str | Path) -> Path:
    if not Path(file).is_file():
        raise UserError(f"{file} does not exist; correct the path")
    return Path(file)


def _check_same(
    path: Path, sets: Sequence[BenchmarkSet], methods: Sequence[Method], settings: Settings, used: set[str]
) -> None:
    """What is in the folder was made in the same way. Sets and methods may be added; those ``used`` have results."""
    described: dict[str, Any] = {key: value for key, value in settings._asdict().items() if key != "device"}
    for dataset in sets:
        described[f"set {dataset.name}"] = [
            [str(pair.hr.absolute()), str(pair.lr.absolute())] for pair in dataset.pairs
        ]
    for method in methods:
        source = method.source and fingerprint(method.source)
        described[f"method {method.name}"] = [method.temperature, method.num_samples, source]
    earlier = json.loads(path.read_text()) if path.exists() else {}
    for key, value in described.items():
        name = key.partition(" ")[2]  # of a set or method
        if earlier.get(key, value) != value and used and (not name or name in used):
            raise UserError(f"{path.parent} holds a benchmark with another {key}; choose another folder with -o")
    path.write_text(json.dumps({**earlier, **described}, indent=1) + "\n")


BENCHMARK = {
    "benchmark": ("sample, score and compare: tables and figures with their protocol", add_arguments, run),
}
