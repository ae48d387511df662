"""``srflow upscale``: image files in, super-resolved image files out."""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srflow_plugin._version import __version__
from srflow_plugin.checkpoints.shipped import DEFAULT_SCALE
from srflow_plugin.cli import arguments
from srflow_plugin.errors import UserError, counted
from srflow_plugin.progress import say, tell
from srflow_plugin.sampling.temperature import check as check_temperature
from srflow_plugin.sampling.temperature import is_learned, is_random, label

HELP = "super-resolve images"
EXTRAS = ("mean", "std", "sheet")
SHOWN = 4
TO_CHOOSE = "--network photo|real to choose"
SETTINGS = ("temperature", "adaptive", "seed", "tile", "precision", "outscale", "format", "quality")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="images, folders of images, patterns such as 'a/*.jpg'"
    )
    arguments.add_output(parser, "folder for the images (made if missing), or a file for one sample of one image")
    parser.add_argument("--recursive", action="store_true", help="take folders in folders, too; OUTPUT gets the same")
    arguments.add_temperature(parser, learned=True)
    arguments.add_adaptive(parser)
    arguments.add_samples(parser, default=1)
    parser.add_argument(
        "--only",
        type=arguments.in_range(int, low=0),
        metavar="N",
        help="draw sample N of the seed alone, counted from 0: the same as among others",
    )
    arguments.add_checkpoint(parser)
    arguments.add_network(parser)
    parser.add_argument("--mean", action="store_true", help="also write the mean of the samples")
    parser.add_argument("--std", action="store_true", help="also write a map of where the samples differ")
    parser.add_argument("--sheet", action="store_true", help="also write all side by side: LR, bicubic, samples, map")
    _add_files(parser)
    arguments.add_tile(parser)
    arguments.add_device(parser)
    parser.add_argument(
        "--precision",
        choices=["auto", "float32", "bfloat16"],
        default="auto",
        help="precision of the network (default: bfloat16 on GPUs, float32 on CPUs)",
    )
    arguments.add_compile(parser)


def _add_files(parser: argparse.ArgumentParser) -> None:
    """Add what says how the files are written and read."""
    parser.add_argument(
        "--format",
        choices=["png", "jpg", "webp", "tiff"],
        help="format of the images (default: png, or as OUTPUT ends)",
    )
    parser.add_argument(
        "--quality",
        type=arguments.in_range(int, low=1, below=101),
        help="quality of jpg and webp, 1 to 100; a webp of 100 is lossless (default: 95)",
    )
    parser.add_argument("--suffix", default="", help="end of the images' names, such as _x4")
    parser.add_argument(
        "--outscale",
        type=arguments.in_range(float, low=0),
        metavar="S",
        help="how many times larger the results are, at most the network's scale, from which they are downscaled as "
        "MATLAB does (default: the network's)",
    )
    parser.add_argument(
        "--max-pixels",
        type=arguments.in_range(int, low=1),
        default=2**30,
        help="largest number of pixels of an image; larger ones are refused (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    from srflow_plugin.applications.batch import do_jobs, plan
    from srflow_plugin.checkpoints.shipped import candidates
    from srflow_plugin.shares import this_process

    check(args)
    arguments.tell_if_steep(args.temperature)
    checkpoints = candidates(args.network, args.checkpoint, args.scale)
    jobs = plan(args.inputs, args.output, wanted_of(args), args.overwrite, settings_of(args, checkpoints))
    done = sum(job.is_done for job in jobs)
    rank = this_process().rank
    if done and rank == 0 and not args.overwrite:
        tell(f"{done} of {len(jobs)} are there and stay; --overwrite draws them anew")
    if done == len(jobs):
        return 0

    work = _Work(args, checkpoints, is_alone=len(jobs) == 1)
    folder = args.output if args.output.is_dir() or not _is_file(args) else args.output.parent
    written, failed = do_jobs(jobs, work.do, folder)
    shown = ", ".join(map(str, written[:SHOWN]))
    shown += f" and {len(written) - SHOWN} more" if len(written) > SHOWN else ""
    if shown:
        say(shown if this_process().size == 1 else f"rank {rank}: {shown}")
    work.conclude()
    if failed:
        tell(f"srflow upscale: {failed} of {len(jobs)} images could not be drawn; they are named above")
    return int(failed > 0)


class _Work:
    """Draws the images of jobs, and remembers what is to be said at the end."""

    def __init__(self, args: argparse.Namespace, checkpoints: Sequence[Path], is_alone: bool) -> None:
        from srflow_plugin.applications.upscale import How, check_outscale
        from srflow_plugin.devices import choose_device

        self.args, self.is_alone = args, is_alone
        self.only = checkpoints[0] if len(checkpoints) == 1 else None  # without it the pictures choose
        self.networks: dict[Path, Any] = {}
        self.chosen: Counter[str] = Counter()
        choose_device(args.device)
        check_outscale(args.outscale, self._network(self.only).scale if self.only else DEFAULT_SCALE)
        if is_learned(args.temperature):  # a network without a prior is the fault of no picture
            self._check_priors(checkpoints)
        self.how = How(
            args.temperature, args.num_samples, args.seed, args.tile, args.only, args.outscale, args.adaptive
        )
        self.exploded = self.images = 0

    def do(self, job: Any) -> None:
        from srflow_plugin.applications.enlarge import enlarge_file

        checkpoint = self.only or self._choose(job.source)
        quality, name = 95 if self.args.quality is None else self.args.quality, checkpoint.stem
        network, job = self._network(checkpoint), job.drawn_with(name)
        told = enlarge_file(network, job, self.how, quality, self.args.max_pixels, name, self.is_alone)
        self._say(job.source, told.notes)
        self.exploded += told.exploded
        self.images += told.exploded > 0

    def _check_priors(self, checkpoints: Sequence[Path]) -> None:
        """Refuse candidates without a learned prior, and name one that has it."""
        having, refusals = [], []
        for checkpoint in checkpoints:
            try:
                self._network(checkpoint)
                having.append(checkpoint.stem)
            except UserError as error:
                refusals.append(error)
        if refusals:
            hint = f"; {having[0]} has one: --checkpoint {having[0]}" if having else ""
            raise UserError(f"{refusals[0]}{hint}")

    def _network(self, checkpoint: Path) -> Any:
        """Load a network once, and only if a picture needs it."""
        from srflow_plugin.applications.upscale import find_network

        if checkpoint not in self.networks:
            how = self.args.device, self.args.precision, self.args.compile
            network = find_network(self.args.scale, self.args.checkpoint or checkpoint, *how)
            check_temperature(self.args.temperature, network, "this network" if self.only else checkpoint.stem)
            self.networks[checkpoint] = network
        return self.networks[checkpoint]

    def _choose(self, source: Path) -> Path:
        """Let a picture choose its network, and say which."""
        from srflow_plugin.applications.choice import choose
        from srflow_plugin.images.rows import open_rows

        choice = choose(open_rows(source, self.args.max_pixels))
        self.chosen[choice.network.name] += 1
        tell(f"{source}: {choice}" + (f" ({TO_CHOOSE})" if self.is_alone else ""))
        return choice.network.path

    def _say(self, source: Path, notes: Sequence[str]) -> None:
        for note in notes:
            tell(f"{source}: {note}")

    def conclude(self) -> None:
        """Count the networks that were chosen, and the samples that exploded in places."""
        if self.chosen and not self.is_alone:
            counts = ", ".join(f"{name} for {counted(count, 'image')}" for name, count in sorted(self.chosen.items()))
            tell(f"{counts}; {TO_CHOOSE}")
        if self.exploded:
            of = "" if self.is_alone else f", of {self.images} images"
            tell(f"samples that exploded in places, which were drawn again, calmer: {self.exploded}{of}")


def check(args: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    if (args.num_samples < 2 or args.only is not None) and (args.mean or args.std):
        raise UserError("--mean and --std need --num-samples 2 or more, and no --only")
    if not is_random(args.temperature) and (args.num_samples > 1 or args.only):
        temperature = label(args.temperature)
        raise UserError(f"at --temperature {temperature} all samples are equal; leave --num-samples and --only out")
    if not is_random(args.temperature) and args.adaptive is not None:
        temperature = label(args.temperature)
        raise UserError(f"at --temperature {temperature} there is nothing to lower; leave --adaptive out")
    if args.only is not None and args.num_samples > 1 and args.only >= args.num_samples:
        raise UserError(f"--only {args.only} is none of {args.num_samples} samples, which are counted from 0")
    if args.suffix and (Path(args.suffix).name != args.suffix or args.suffix in (".", "..")):
        raise UserError(f"--suffix {args.suffix} would lead to another folder; leave out what is no part of a name")
    if args.quality is not None and _format(args) not in ("jpg", "webp"):
        raise UserError("--quality is for --format jpg and webp")
    if args.format is not None and _is_file(args) and _format(args) != args.format:
        raise UserError(f"{args.output} does not end in .{args.format}; leave --format out, or name a folder")


def wanted_of(args: argparse.Namespace) -> Any:
    """Collect which files are wanted."""
    from srflow_plugin.applications.batch import Wanted

    extras = [extra for extra in EXTRAS if getattr(args, extra)]
    return Wanted(args.num_samples, args.only, extras, args.format or "png", args.suffix, args.recursive)


def settings_of(args: argparse.Namespace, checkpoints: Sequence[Path]) -> dict[str, Any]:
    """Collect what changes the pictures, beside the images and their number.

    Of several networks the image, which is a part of each stamp, always chooses the same one.
    """
    settings = {name: getattr(args, name) for name in SETTINGS}
    settings["format"] = _format(args)
    networks = hashlib.sha256(b"".join(path.read_bytes() for path in checkpoints)).hexdigest()
    return {**settings, "network": networks, "version": __version__}


def _is_file(args: argparse.Namespace) -> bool:
    from srflow_plugin.applications.batch import is_picture

    return is_picture(args.output)


def _format(args: argparse.Namespace) -> str:
    """Name the format of the images."""
    from srflow_plugin.images.writing import file_format

    return file_format(args.output) if _is_file(args) else args.format or "png"
