"""``srflow interpolate``: images between two HR images, through their latents."""

from __future__ import annotations

import argparse
from pathlib import Path

from srflow_plugin.cli import arguments
from srflow_plugin.progress import tell

HELP = "go from one HR image to another through latents"
GRID = "grid.png"  # beside the images


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", type=Path, metavar="FIRST", help="HR image")
    parser.add_argument("second", type=Path, metavar="SECOND", help="HR image of the same size")
    arguments.add_lq(parser, "FIRST")
    parser.add_argument(
        "--steps",
        type=arguments.in_range(int, low=2, most=10_000),
        default=5,
        help="images, both ends included (default: 5)",
    )
    arguments.add_output(parser, "folder for the images and a grid of them (made if missing)")
    arguments.add_checkpoint(parser)
    arguments.add_device(parser)


def run(args: argparse.Namespace) -> None:
    names = [*(f"{number:03d}.png" for number in range(args.steps)), GRID]
    arguments.check_folder(args.output, names, args.overwrite)
    arguments.check_inputs(args.first, args.second, args.lq)

    from srflow_plugin.applications.editing import interpolate
    from srflow_plugin.applications.pairs import read_pair, to_picture, write_picture
    from srflow_plugin.applications.upscale import find_network
    from srflow_plugin.images.files import write_image
    from srflow_plugin.images.pictures import comparison_grid

    net = find_network(args.scale, args.checkpoint, args.device, "float32")
    first, lq = read_pair(net, args.first, args.lq)
    second, _ = read_pair(net, args.second, like=first)
    pictures = [to_picture(image) for image in interpolate(net, first, second, lq, args.steps)]
    args.output.mkdir(exist_ok=True)
    older = sorted(path.name for path in args.output.glob("[0-9][0-9][0-9].png") if path.name not in names)
    if older:
        tell(f"{args.output}: {', '.join(older)} of an earlier way stay")
    for name, picture in zip(names, pictures, strict=False):
        write_image(args.output / name, picture)
    weights = [f"{step / (args.steps - 1):.2f}" for step in range(args.steps)]
    grid = comparison_grid(list(zip(weights, pictures, strict=True)), pictures[0].shape[0])
    write_picture(args.output / GRID, grid)
