"""``srflow redraw``: a painted part of a picture, drawn anew; the rest stays as it is."""

from __future__ import annotations

import argparse
from pathlib import Path

from srflow_plugin.cli import arguments
from srflow_plugin.errors import UserError
from srflow_plugin.files import check_new_file
from srflow_plugin.progress import say, tell

HELP = "draw a painted part of a picture anew, and leave the rest as it is"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="super-resolved picture, or any HR image")
    parser.add_argument(
        "--mask",
        type=Path,
        required=True,
        help="image of PICTURE's size, or of its LR image's: white where to draw anew, or opaque if it is transparent",
    )
    arguments.add_lq(parser, "PICTURE")
    parser.add_argument("-o", "--output", type=Path, help="PNG file (default: PICTURE_redrawn.png beside PICTURE)")
    arguments.add_overwrite(parser)
    ways = parser.add_mutually_exclusive_group()
    arguments.add_temperature(ways, "of what is drawn")
    ways.add_argument(
        "--factor",
        type=arguments.in_range(float, low=0),
        help="draw nothing new, but make what is there calmer (below 1) or livelier (above 1)",
    )
    arguments.add_seed(parser)
    arguments.add_checkpoint(parser)
    arguments.add_device(parser)


def run(args: argparse.Namespace) -> None:
    output = args.output or args.picture.with_name(f"{args.picture.stem}_redrawn.png")
    _check(args, output)
    arguments.tell_if_steep(args.temperature)

    from srflow_plugin.images.rows import read_photograph
    from srflow_plugin.images.writing import write_photograph

    picture = read_photograph(args.picture)
    lq = read_photograph(args.lq) if args.lq else None

    from srflow_plugin.applications.redraw import read_mask, redraw_photograph
    from srflow_plugin.applications.upscale import find_network

    mask = read_mask(args.mask)
    net = find_network(args.scale, args.checkpoint, args.device, "float32")
    try:
        result = redraw_photograph(net, picture, mask, lq, args.temperature, args.seed, args.factor)
    except UserError as error:
        raise UserError(f"{args.picture}: {error}") from None
    write_photograph(output, result.photograph)
    for note in result.notes:
        tell(f"{args.picture}: {note}")
    say(f"{output} is written: {result.changed} of {picture.rgb[..., 0].size} pixels changed.")


def _check(args: argparse.Namespace, output: Path) -> None:
    """Say what is wrong before anything is read."""
    arguments.check_inputs(args.picture, args.mask, args.lq)
    arguments.check_suffix(output, (".png",))
    check_new_file(output, args.overwrite)
    if any(output.resolve() == path.resolve() for path in (args.mask, args.lq) if path):
        raise UserError(f"{output} is read as well; choose another name with -o")
