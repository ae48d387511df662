"""``srflow upscale``: image files in, super-resolved image files out."""

from __future__ import annotations

import argparse
import hashlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

from srflow_plugin._version import __version__
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


def run(args: argparse.Namespace) -> int:
    from srflow_plugin.applications.batch import Job, do_jobs, plan, write_outputs
    from srflow_plugin.checkpoints.shipped import find_checkpoint
    from srflow_plugin.shares import this_process

    if args.num_samples < 2 and (args.mean or args.std):
        raise UserError("--mean and --std need --num-samples 2 or more")
    if args.temperature == 0 and args.num_samples > 1:
        raise UserError("at --temperature 0 all samples are equal; leave --num-samples out")
    extras = [extra for extra in EXTRAS if getattr(args, extra)]
    settings = settings_of(args, find_checkpoint(args.checkpoint, args.scale))
    jobs = plan(args.inputs, args.output, args.num_samples, extras, args.overwrite, settings)
    done = sum(job.is_done for job in jobs)
    rank = this_process().rank
    if done and rank == 0 and not args.overwrite:
        sys.stderr.write(f"{done} of {len(jobs)} are there and stay; --overwrite draws them anew\n")
    if done == len(jobs):
        return 0

    from srflow_plugin.applications.upscale import bicubic, draw, find_network
    from srflow_plugin.images.photographs import read_photograph

    network = find_network(args.scale, args.checkpoint, args.device, args.precision)

    def do(job: Job) -> None:
        photograph = read_photograph(job.source)
        how = (args.temperature, args.num_samples, args.seed, args.tile)
        samples = draw(network, photograph, *how, progress=len(jobs) == 1)
        enlarge = partial(bicubic, scale=network.scale)
        write_outputs(job.outputs, photograph, enlarge, samples, f"tau {args.temperature:g}", job.stamp)

    folder = next(iter(jobs[0].outputs.values())).parent
    written, failed = do_jobs(jobs, do, folder)
    shown = ", ".join(map(str, written[:4])) + (f" and {len(written) - 4} more" if len(written) > 4 else "")
    if shown:
        sys.stdout.write(f"{shown}\n" if this_process().size == 1 else f"rank {rank}: {shown}\n")
    if failed:
        sys.stderr.write(f"srflow upscale: {failed} of {len(jobs)} images could not be drawn; they are named above\n")
    return int(failed > 0)


def settings_of(args: argparse.Namespace, checkpoint: Path) -> dict[str, Any]:
    """Collect what changes the pictures, beside the images and their number."""
    settings = {name: getattr(args, name) for name in ("temperature", "seed", "tile", "precision")}
    return {**settings, "network": hashlib.sha256(checkpoint.read_bytes()).hexdigest(), "version": __version__}
