"""``srflow benchmark``: samples drawn, scored and put into tables."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from srflow_plugin.cli import arguments
from srflow_plugin.cli.arguments import DEFAULT_TEMPERATURE, in_range
from srflow_plugin.errors import UserError, needs

HELP = "sample, score and compare: tables and figures with their protocol"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of images, tables and figures")
    parser.add_argument(
        "--set",
        nargs=3,
        action="append",
        required=True,
        metavar=("NAME", "HR", "LR"),
        dest="sets",
        help="a data set: its name in tables, its folders of images, paired by name (1.png, 1x4.png); may be repeated",
    )
    _add_method_arguments(parser)
    arguments.add_resample(parser, default=None)
    arguments.add_tile(parser)
    parser.add_argument(
        "--distance", choices=["lpips", "stlpips"], default="lpips", help="learned distance (default: lpips)"
    )
    parser.add_argument(
        "--net", choices=["alex", "vgg"], default="alex", help="network of the learned distance (default: alex)"
    )
    parser.add_argument(
        "--lr-border",
        choices=["symmetric", "replicate"],
        default="symmetric",
        help="how the LR images were made; replicate for the common Set5 ... Urban100 files (default: symmetric)",
    )
    parser.add_argument("--niqe", action="store_true", help="also compute NIQE (slow)")
    parser.add_argument(
        "--workers",
        type=in_range(int, low=1, most=512),
        help="threads that score (default: all cores; under a launcher one)",
    )
    arguments.add_device(parser)
    arguments.add_compile(parser)


def _add_method_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        default=[],
        metavar="NETWORK",
        help="SRFlow networks: files, or srflow_x4, srflow_x4_real, srflow_x8_face of the package",
    )
    arguments.add_temperature(parser, learned=True, nargs="+", default=[0, DEFAULT_TEMPERATURE])
    arguments.add_adaptive(parser)
    arguments.add_samples(parser, default=10)
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
        help="another method's files: in DIR or DIR/SET, named as the HR or LR image, or 000000_sample00000.png",
    )


def run(args: argparse.Namespace) -> None:
    if not (args.checkpoint or args.network or args.images or args.bicubic):
        raise UserError("nothing to compare: give --checkpoint, --network, --images or --bicubic")
    with needs("train", "srflow benchmark"):
        from srflow_plugin.devices import choose_device
        from srflow_plugin.leaderboard.draw import Settings
        from srflow_plugin.leaderboard.run import check_names, choose_methods, run_benchmark
        from srflow_plugin.leaderboard.sets import find_set

    sets = [find_set(name, Path(hr), Path(lr)) for name, hr, lr in args.sets]
    methods = choose_methods(
        checkpoints=args.checkpoint,
        temperatures=args.temperature,
        num_samples=args.num_samples,
        networks=args.network,
        folders=args.images,
        bicubic=args.bicubic,
    )
    check_names([method.name for method in methods], [dataset.name for dataset in sets])
    settings = Settings(
        seed=args.seed,
        resample=args.resample,
        distance=args.distance,
        net=args.net,
        lr_border=args.lr_border,
        tile=args.tile,
        niqe=args.niqe,
        device=str(choose_device(args.device)),
        compile=args.compile,
        adaptive=args.adaptive,
    )
    table = run_benchmark(args.output, sets, methods, settings, args.workers)
    if table:
        sys.stdout.write(f"{table}\n{args.output}: table.md, times.md, summary.json, per_image.csv, figures/\n")
