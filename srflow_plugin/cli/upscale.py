"""``srflow upscale``: image files in, super-resolved image files out."""

from __future__ import annotations

import argparse
import glob
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from srflow_plugin.data.images import IMAGE_SUFFIXES, write_image
from srflow_plugin.data.photographs import Photograph, read_photograph, write_png
from srflow_plugin.data.prepare import find_images
from srflow_plugin.errors import UserError
from srflow_plugin.pictures import contact_sheet, heat_map
from srflow_plugin.upscaling import bicubic, draw, find_network


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="images, folders of images, patterns such as 'a/*.jpg'"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="folder for the images (made if missing), or a .png file for one sample of one image",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        help="0: the smoothest image; up to about 1: sharper, bolder (default: 0.8)",
    )
    parser.add_argument("--num-samples", type=int, default=1, help="images for each input (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="other seeds give other samples (default: 0)")
    parser.add_argument(
        "--scale", type=int, help="4: photographs; 8: faces, aligned, 20 pixels high (default: the checkpoint's, or 4)"
    )
    parser.add_argument("--checkpoint", type=Path, help="SRFlow network (default: the one that comes with the package)")
    parser.add_argument("--mean", action="store_true", help="also write the mean of the samples")
    parser.add_argument("--std", action="store_true", help="also write a map of where the samples differ")
    parser.add_argument("--sheet", action="store_true", help="also write all side by side: LR, bicubic, samples, map")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.add_argument(
        "--tile", type=_tile, default="auto", help="side of tiles in input pixels (default: as memory allows)"
    )
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: a GPU if there is one"
    )
    parser.add_argument(
        "--precision",
        choices=["auto", "float32", "bfloat16"],
        default="auto",
        help="default: bfloat16 on GPUs, float32 on CPUs",
    )


def run(args: argparse.Namespace) -> None:
    if args.temperature < 0 or args.num_samples < 1 or (args.tile != "auto" and args.tile < 1):
        raise UserError("--temperature must be 0 or more, --num-samples and --tile 1 or more")
    if args.num_samples < 2 and (args.mean or args.std):
        raise UserError("--mean and --std need --num-samples 2 or more")
    if args.temperature == 0 and args.num_samples > 1:
        raise UserError("at --temperature 0 all samples are equal; leave --num-samples out")
    inputs = _inputs(args.inputs)
    outputs = [_outputs(path, args) for path in inputs]
    _check_outputs(inputs, outputs, args)
    network = find_network(args.scale, args.checkpoint, args.device, args.precision)
    if args.output.suffix.lower() not in IMAGE_SUFFIXES:
        args.output.mkdir(parents=True, exist_ok=True)
    for path, files in zip(tqdm(inputs, unit="image", disable=len(inputs) == 1), outputs, strict=True):
        photograph = read_photograph(path)
        samples = draw(
            network, photograph, args.temperature, args.num_samples, args.seed, args.tile, progress=len(inputs) == 1
        )
        _write(files, photograph, samples, network.scale, args)
    written = [str(file) for files in outputs for file in files.values()]
    shown = ", ".join(written[:4]) + (f" and {len(written) - 4} more" if len(written) > 4 else "")
    sys.stdout.write(f"{shown}\n")


def _write(
    files: dict[str, Path], photograph: Photograph, samples: list[Photograph], scale: int, args: argparse.Namespace
) -> None:
    """The samples, and what else was asked for."""
    for number, sample in enumerate(samples):
        write_png(files[f"sample{number}"], sample)
    stack = np.stack([sample.rgb for sample in samples])
    if args.mean:
        write_png(files["mean"], samples[0].with_pixels(stack.mean(0), samples[0].alpha))
    if args.std or args.sheet:
        spread = heat_map(255 * stack.std(0).mean(2), "grey levels")
    if args.std:
        write_image(files["std"], spread)
    if args.sheet:
        titled = [("LR", photograph), ("bicubic", bicubic(photograph, scale))]
        titled += [(f"tau {args.temperature:g}, {number}", sample) for number, sample in enumerate(samples)]
        columns = [(title, _bgr(picture)) for title, picture in titled]
        columns += [("standard deviation", spread)] if len(samples) > 1 else []
        write_image(files["sheet"], contact_sheet(columns, columns[1][1].shape[0]))


def _bgr(photograph: Photograph) -> np.ndarray:
    """Its colours as OpenCV has them."""
    return np.ascontiguousarray((255 * photograph.rgb[..., ::-1]).round().astype(np.uint8))


def _inputs(names: list[str]) -> list[Path]:
    """Files that the arguments mean, in order, each once."""
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            images = find_images(path)
        elif path.exists() or not glob.has_magic(name):
            images = [path]
        else:
            images = sorted(
                Path(match)
                for match in glob.glob(name, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute patterns)
                if Path(match).is_file()
            )
            if not images:
                raise UserError(f"no file matches {name}")
        found.update(dict.fromkeys(images))
    for path in found:
        if not path.exists():
            raise UserError(f"{path} does not exist; correct the path")
    return list(found)


def _outputs(path: Path, args: argparse.Namespace) -> dict[str, Path]:
    """What is written for an input: a name for each file."""
    if args.output.suffix.lower() in IMAGE_SUFFIXES:
        return {"sample0": args.output}
    kinds = [f"sample{number}" for number in range(args.num_samples)]
    kinds += [kind for kind in ("mean", "std", "sheet") if getattr(args, kind)]
    return {
        kind: args.output / f"{path.stem}{'' if kind == 'sample0' and args.num_samples == 1 else '_' + kind}.png"
        for kind in kinds
    }


def _check_outputs(inputs: list[Path], outputs: list[dict[str, Path]], args: argparse.Namespace) -> None:
    """Before any work: can all be written, and does nothing get lost?"""
    if args.output.suffix.lower() in IMAGE_SUFFIXES:
        if args.output.suffix.lower() != ".png":
            raise UserError(f"{args.output} must end in .png, or be a folder")
        if len(inputs) > 1 or args.num_samples > 1 or args.sheet:
            raise UserError(f"{args.output} is one file; name a folder with -o for several")
        if not args.output.parent.is_dir():
            raise UserError(f"{args.output.parent} is not a folder; make it first")
    elif args.output.exists() and not args.output.is_dir():
        raise UserError(f"{args.output} is not a folder")
    writers: dict[Path, Path] = {}
    for path, files in zip(inputs, outputs, strict=True):
        for file in files.values():
            if file in writers:
                raise UserError(f"{writers[file]} and {path} would both become {file}; take them one by one")
            writers[file] = path
            if file.exists() and (not args.overwrite or file.resolve() == path.resolve()):
                remedy = "choose another folder with -o" if args.overwrite else "give --overwrite or another -o"
                raise UserError(f"{file} exists; {remedy}")


def _tile(text: str) -> Any:
    return text if text == "auto" else int(text)


UPSCALE = {"upscale": ("super-resolve images", add_arguments, run)}
