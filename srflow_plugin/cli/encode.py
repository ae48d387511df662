"""``srflow encode``: an HR image becomes latents."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from srflow_plugin.cli import arguments
from srflow_plugin.files import check_new_file, complete_or_absent

HELP = "turn an HR image into latents"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path, metavar="HR", help="HR image")
    arguments.add_lq(parser, "HR")
    arguments.add_output(parser, "latents, .safetensors")
    arguments.add_checkpoint(parser)
    arguments.add_device(parser)


def run(args: argparse.Namespace) -> None:
    arguments.check_suffix(args.output, (".safetensors",))
    arguments.check_inputs(args.image, args.lq)
    check_new_file(args.output, args.overwrite)

    import torch

    from srflow_plugin.applications.latents import save_latents
    from srflow_plugin.applications.pairs import read_pair
    from srflow_plugin.applications.upscale import find_network

    net = find_network(args.scale, args.checkpoint, args.device, "float32")
    gt, lq = read_pair(net, args.image, args.lq)
    with torch.no_grad():
        encoding = net.encoding(gt, lq)
    with complete_or_absent(args.output) as unfinished:
        save_latents(unfinished, encoding.latents, lq)
    shapes = ", ".join("x".join(map(str, latent.shape[1:])) for latent in encoding.latents)
    sys.stdout.write(f"{args.output}: latents {shapes}; NLL {encoding.nll().item():.4f} bits per dimension\n")
