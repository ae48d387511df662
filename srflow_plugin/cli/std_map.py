"""``srflow std-map``: the standard deviation over samples at each pixel."""

from __future__ import annotations

import argparse
from pathlib import Path

from srflow_plugin.cli import arguments

HELP = "map where samples differ: their standard deviation at each pixel"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lq", type=Path, metavar="LR", help="LR image")
    arguments.add_output(parser, "map in colour, an image; .npy: the numbers, in grey levels")
    arguments.add_temperature(parser)
    arguments.add_samples(parser, default=10)
    arguments.add_resample(parser, default=0.8)
    arguments.add_tile(parser)
    arguments.add_checkpoint(parser)
    arguments.add_device(parser)


def run(args: argparse.Namespace) -> None:
    arguments.check_picture(args.output, args.overwrite, others=(".npy",))
    arguments.check_inputs(args.lq)
    arguments.tell_if_steep(args.temperature)

    from srflow_plugin.applications.maps import sample_std
    from srflow_plugin.applications.pairs import read_lq, write_map
    from srflow_plugin.applications.upscale import find_network

    net = find_network(args.scale, args.checkpoint, args.device, "float32")
    how = {"tile": args.tile, "progress": True, "resample": args.resample}
    values = sample_std(net, read_lq(net, args.lq), args.temperature, args.num_samples, args.seed, **how)
    write_map(args.output, values, "grey levels")
