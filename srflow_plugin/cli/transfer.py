"""``srflow transfer``: an edited HR image, harmonised with the original's LR image."""

from __future__ import annotations

import argparse
from pathlib import Path

from srflow_plugin.cli import arguments

HELP = "harmonise an edited HR image with the original's LR image"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("edited", type=Path, metavar="EDITED", help="HR image with content pasted from elsewhere")
    parser.add_argument("original", type=Path, metavar="ORIGINAL", help="the HR image before; its LR image is kept to")
    arguments.add_lq(parser, "ORIGINAL")
    arguments.add_output(parser, "HR image")
    arguments.add_checkpoint(parser)
    arguments.add_device(parser)


def run(args: argparse.Namespace) -> None:
    arguments.check_picture(args.output, args.overwrite)
    arguments.check_inputs(args.edited, args.original, args.lq)

    from srflow_plugin.applications.editing import transfer_content
    from srflow_plugin.applications.pairs import read_pair, to_picture, write_picture
    from srflow_plugin.applications.upscale import find_network

    net = find_network(args.scale, args.checkpoint, args.device, "float32")
    edited, edited_lq = read_pair(net, args.edited)
    _, lq = read_pair(net, args.original, args.lq, like=edited)
    write_picture(args.output, to_picture(transfer_content(net, edited, edited_lq, lq)))
