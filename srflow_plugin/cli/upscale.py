"""``srflow upscale``: image files in, super-resolved image files out."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from srflow_plugin.cli import arguments
from srflow_plugin.errors import UserError

HELP = "super-resolve images"
EXTRAS = ("mean", "std", "sheet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="images, folders of images, patterns such as 'a/*.jpg'"
    )
    arguments.add_output(parser, "folder for the images (made if missing), or a .png file for one sample of one image")
    arguments.add_temperature(parser)
    arguments.add_samples(parser, default=1)
    arguments.add_checkpoint(parser)
    parser.add_argument("--mean", action="store_true", help="also write the mean of the samples")
    parser.add_argument("--std", action="store_true", help="also write a map of where the samples differ")
    parser.add_argument("--sheet", action="store_true", help="also write all side by side: LR, bicubic, samples, map")
    arguments.add_tile(parser)
    arguments.add_device(parser)
    parser.add_argument(
        "--precision",
        choices=["auto", "float32", "bfloat16"],
        default="auto",
        help="default: bfloat16 on GPUs, float32 on CPUs",
    )


def run(args: argparse.Namespace) -> None:
    from srflow_plugin.applications.batch import plan, write_outputs
    from srflow_plugin.checkpoints.shipped import find_checkpoint

    if args.num_samples < 2 and (args.mean or args.std):
        raise UserError("--mean and --std need --num-samples 2 or more")
    if args.temperature == 0 and args.num_samples > 1:
        raise UserError("at --temperature 0 all samples are equal; leave --num-samples out")
    extras = [extra for extra in EXTRAS if getattr(args, extra)]
    jobs = plan(args.inputs, args.output, args.num_samples, extras, args.overwrite)
    find_checkpoint(args.checkpoint, args.scale)

    from srflow_plugin.applications.upscale import bicubic, draw, find_network
    from srflow_plugin.images.photographs import read_photograph
    from srflow_plugin.progress import with_progress

    network = find_network(args.scale, args.checkpoint, args.device, args.precision)
    is_alone = len(jobs) == 1
    for job in with_progress(jobs, "image", disable=is_alone):
        photograph = read_photograph(job.source)
        how = (args.temperature, args.num_samples, args.seed, args.tile)
        samples = draw(network, photograph, *how, progress=is_alone)
        for file in job.outputs.values():
            file.parent.mkdir(parents=True, exist_ok=True)
        enlarge = partial(bicubic, scale=network.scale)
        write_outputs(job.outputs, photograph, enlarge, samples, f"tau {args.temperature:g}")
    written = [str(file) for job in jobs for file in job.outputs.values()]
    shown = ", ".join(written[:4]) + (f" and {len(written) - 4} more" if len(written) > 4 else "")
    sys.stdout.write(f"{shown}\n")
