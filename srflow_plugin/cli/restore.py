"""``srflow restore``: a degraded HR image, restored by normalising its latents."""

from __future__ import annotations

import argparse
from pathlib import Path

from srflow_plugin.cli import arguments

HELP = "restore a degraded HR image by normalising its latents"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path, metavar="HR", help="degraded HR image: noise, compression, pasted parts")
    arguments.add_lq(parser, "HR")
    arguments.add_output(parser, "HR image")
    arguments.add_temperature(parser, "of the normalised latents")
    parser.add_argument(
        "--window", type=arguments.window, default=9, help="side of the local statistics' square, odd (default: 9)"
    )
    arguments.add_checkpoint(parser)
    arguments.add_device(parser)


def run(args: argparse.Namespace) -> None:
    arguments.check_picture(args.output, args.overwrite)
    arguments.tell_if_steep(args.temperature)
    arguments.check_inputs(args.image, args.lq)

    from srflow_plugin.applications.editing import restore
    from srflow_plugin.applications.pairs import read_pair, to_picture, write_picture
    from srflow_plugin.applications.upscale import find_network

    net = find_network(args.scale, args.checkpoint, args.device, "float32")
    image, lq = read_pair(net, args.image, args.lq)
    write_picture(args.output, to_picture(restore(net, image, lq, args.temperature, args.window)))
