"""``srflow encode``: an HR image becomes latents."""

from __future__ import annotations

import argparse
from pathlib import Path

from srflow_plugin.cli import arguments
from srflow_plugin.files import check_new_file
from srflow_plugin.progress import say

HELP = "turn an HR image into latents"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path, metavar="HR", help="HR image")
    arguments.add_lq(parser, "HR")
    arguments.add_output(parser, "latents, .safetensors")
    parser.add_argument(
        "--exact",
        action="store_true",
        help="compute in float64, so that `srflow decode` gives every pixel of any image back; twice the time and file",
    )
    arguments.add_checkpoint(parser)
    arguments.add_device(parser)


def run(args: argparse.Namespace) -> None:
    arguments.check_suffix(args.output, (".safetensors",))
    arguments.check_inputs(args.image, args.lq)
    check_new_file(args.output, args.overwrite)

    import torch

    from srflow_plugin.applications.latents import save_latents
    from srflow_plugin.applications.pairs import in_float64, read_pair
    from srflow_plugin.applications.upscale import find_network
    from srflow_plugin.checkpoints.shipped import find_checkpoint

    net = find_network(args.scale, args.checkpoint, args.device, "float32")
    gt, lq = read_pair(net, args.image, args.lq)
    if args.exact:
        net, (gt, lq) = in_float64(net, gt, lq)
    with torch.no_grad():
        features = net.features(lq)
        encoding = net.encoding(gt, lq, features)
        # Where the image is extended, its likelihood asks for noise that its latents are without.
        is_whole = net.padded_lq(lq).shape == lq.shape
        nll = (encoding if is_whole else net.likelihood(gt, lq, features)).nll().item()
        code_length = net.code_length(gt, lq, features=features).item()
    name = find_checkpoint(args.checkpoint, args.scale).name
    save_latents(args.output, encoding.latents, lq, net, name, replacing=args.overwrite)
    shapes = ", ".join("x".join(map(str, latent.shape[1:])) for latent in encoding.latents)
    say(
        f"{args.output}: latents {shapes}; NLL {nll:.4f} bits per dimension (density of the float image), code length "
        f"{code_length:.4f} bits per dimension of the 8 bit image at most"
    )
