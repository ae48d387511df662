"""``srflow decode``: latents become the HR image again."""

from __future__ import annotations

import argparse
from pathlib import Path

from srflow_plugin.cli import arguments
from srflow_plugin.errors import UserError

HELP = "turn latents into the HR image"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("latents", type=Path, metavar="LATENTS", help="file that `srflow encode` wrote")
    parser.add_argument("--lq", type=Path, metavar="LR", help="another LR image than the one in LATENTS")
    arguments.add_output(parser, "HR image")
    arguments.add_checkpoint(parser)
    arguments.add_device(parser)


def run(args: argparse.Namespace) -> None:
    arguments.check_picture(args.output, args.overwrite)
    arguments.check_inputs(args.latents, args.lq)

    import torch

    from srflow_plugin.applications.latents import read_latents
    from srflow_plugin.applications.pairs import in_float64, read_lq, to_picture, write_picture
    from srflow_plugin.applications.upscale import find_network

    net = find_network(args.scale, args.checkpoint, args.device, "float32")
    latents, lq = read_latents(args.latents, net)
    if args.lq:
        lq = read_lq(net, args.lq)
    shapes = [tuple(latent.shape[1:]) for latent in latents]
    expected = net.latent_shapes(*lq.shape[2:])
    if shapes != expected:
        raise UserError(f"{args.latents} has latents {shapes}; this network and LR image have {expected}")
    if latents[0].dtype == torch.float64:
        net, (lq,) = in_float64(net, lq)
    device = next(net.parameters()).device
    with torch.no_grad():
        image = net.decode([latent.to(device) for latent in latents], lq.to(device))
    write_picture(args.output, to_picture(image))
