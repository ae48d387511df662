"""``srflow nll-map``: the negative log-likelihood of each pixel of an image."""

from __future__ import annotations

import argparse
from pathlib import Path

from srflow_plugin.cli import arguments

HELP = "map the negative log-likelihood of an HR image, or its code length, in bits per dimension at each pixel"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path, metavar="HR", help="HR image")
    arguments.add_lq(parser, "HR")
    arguments.add_output(parser, "map in colour, an image; .npy: the numbers, in bits per dimension")
    parser.add_argument(
        "--code-length",
        action="store_true",
        help="map the bits that the 8 bit image takes at most, not the NLL of the float image",
    )
    arguments.add_checkpoint(parser)
    arguments.add_device(parser)


def run(args: argparse.Namespace) -> None:
    arguments.check_picture(args.output, args.overwrite, others=(".npy",))
    arguments.check_inputs(args.image, args.lq)

    from srflow_plugin.applications.maps import code_length_map, nll_map
    from srflow_plugin.applications.pairs import read_pair, write_map
    from srflow_plugin.applications.upscale import find_network

    net = find_network(args.scale, args.checkpoint, args.device, "float32")
    pair = read_pair(net, args.image, args.lq)
    if args.code_length:
        write_map(args.output, code_length_map(net, *pair), "bits/dim", " of the 8 bit image at most: its code length")
    else:
        write_map(args.output, nll_map(net, *pair), "bits/dim", ": the NLL, a density of the float image")
