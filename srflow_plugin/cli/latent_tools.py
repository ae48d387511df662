"""``srflow encode|decode|interpolate|transfer|restore|std-map|nll-map``: what an invertible model can do."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from basicsr.utils import img2tensor, tensor2img
from torch import Tensor

from srflow_plugin.applications import interpolate, nll_map, restore, sample_std, transfer_content
from srflow_plugin.archs.explosions import exploded
from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.checkpoints import load_network
from srflow_plugin.data.images import IMAGE_SUFFIXES, read_image, write_image
from srflow_plugin.data.resize import bicubic_downscale
from srflow_plugin.errors import UserError
from srflow_plugin.files import check_new_file, complete_or_absent
from srflow_plugin.flow import bits_per_dimension, latents_log_prob
from srflow_plugin.latents import read_latents, save_latents
from srflow_plugin.pictures import comparison_grid, heat_map

LQ_HELP = "LR image; default: MATLAB's bicubic downscale of {}"


def _add_common_arguments(parser: argparse.ArgumentParser, output_help: str) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, help=output_help)
    parser.add_argument("--checkpoint", type=Path, required=True, help="SRFlow network: of this project, or released")
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: a GPU if there is one"
    )


def _add_encode_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path, metavar="HR", help="HR image")
    parser.add_argument("--lq", type=Path, help=LQ_HELP.format("HR"))
    _add_common_arguments(parser, "latents, .safetensors")


def _encode(args: argparse.Namespace) -> None:
    _check_output(args.output, (".safetensors",))
    net = _network(args)
    gt, lq = _pair(args.image, args.lq, net)
    with torch.no_grad():
        latents, logdet = net.encode(gt, lq)
    log_prob = latents_log_prob(latents) + logdet
    nll = bits_per_dimension(log_prob, sum(latent[0].numel() for latent in latents)).item()
    with complete_or_absent(args.output) as unfinished:
        save_latents(unfinished, latents, lq)
    shapes = ", ".join("x".join(map(str, latent.shape[1:])) for latent in latents)
    sys.stdout.write(f"{args.output}: latents {shapes}; NLL {nll:.4f} bits per dimension\n")


def _add_decode_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("latents", type=Path, metavar="LATENTS", help="file that `srflow encode` wrote")
    parser.add_argument("--lq", type=Path, help="another LR image than the one in LATENTS")
    _add_common_arguments(parser, "HR image")


def _decode(args: argparse.Namespace) -> None:
    _check_output(args.output)
    net = _network(args)
    latents, lq = read_latents(args.latents)
    if args.lq:
        lq = _read(args.lq)
    shapes = [tuple(latent.shape[1:]) for latent in latents]
    expected = net.latent_shapes(*lq.shape[2:])
    if shapes != expected:
        raise UserError(f"{args.latents} has latents {shapes}; this network and LR image have {expected}")
    device = next(net.parameters()).device
    with torch.no_grad():
        image = net.decode([latent.to(device) for latent in latents], lq.to(device))
    _write(args.output, _picture(image))


def _add_interpolate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", type=Path, metavar="FIRST", help="HR image")
    parser.add_argument("second", type=Path, metavar="SECOND", help="HR image of the same size")
    parser.add_argument("--lq", type=Path, help=LQ_HELP.format("FIRST"))
    parser.add_argument("--steps", type=int, default=5, help="images, both ends included (default: 5)")
    _add_common_arguments(parser, "folder to make, for the images and a grid of them")


def _interpolate(args: argparse.Namespace) -> None:
    _check_output(args.output, ())
    net = _network(args)
    first, lq = _pair(args.first, args.lq, net)
    second, _ = _pair(args.second, None, net, like=first)
    pictures = [_picture(image) for image in interpolate(net, first, second, lq, args.steps)]
    args.output.mkdir()
    for number, picture in enumerate(pictures):
        write_image(args.output / f"{number:03d}.png", picture)
    weights = [f"{step / (args.steps - 1):.2f}" for step in range(args.steps)]
    grid = comparison_grid(list(zip(weights, pictures, strict=True)), pictures[0].shape[0])
    _write(args.output / "grid.png", grid)


def _add_transfer_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("edited", type=Path, metavar="EDITED", help="HR image with content pasted from elsewhere")
    parser.add_argument("original", type=Path, metavar="ORIGINAL", help="the HR image before; its LR image is kept to")
    parser.add_argument("--lq", type=Path, help=LQ_HELP.format("ORIGINAL"))
    _add_common_arguments(parser, "HR image")


def _transfer(args: argparse.Namespace) -> None:
    _check_output(args.output)
    net = _network(args)
    edited, edited_lq = _pair(args.edited, None, net)
    _, lq = _pair(args.original, args.lq, net, like=edited)
    _write(args.output, _picture(transfer_content(net, edited, edited_lq, lq)))


def _add_restore_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path, metavar="HR", help="degraded HR image: noise, compression, pasted parts")
    parser.add_argument("--lq", type=Path, help=LQ_HELP.format("HR"))
    parser.add_argument("--temperature", type=float, default=0.8, help="of the normalised latents (default: 0.8)")
    parser.add_argument("--window", type=int, default=9, help="side of the local statistics' square (default: 9)")
    _add_common_arguments(parser, "HR image")


def _restore(args: argparse.Namespace) -> None:
    _check_output(args.output)
    net = _network(args)
    image, lq = _pair(args.image, args.lq, net)
    _write(args.output, _picture(restore(net, image, lq, args.temperature, args.window)))


def _add_std_map_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lq", type=Path, metavar="LR", help="LR image")
    parser.add_argument("--temperature", type=float, default=0.9, help="of the samples (default: 0.9)")
    parser.add_argument("--num-samples", type=int, default=10, help="default: 10")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--tile", type=int, help="side of tiles in LR pixels (default: as memory allows)")
    parser.add_argument(
        "--resample",
        type=float,
        metavar="FACTOR",
        help="draw places where a sample explodes again at the temperature times FACTOR, e.g. 0.8",
    )
    _add_common_arguments(parser, "map in colour, an image; .npy: the numbers, in grey levels")


def _std_map(args: argparse.Namespace) -> None:
    _check_output(args.output, (*IMAGE_SUFFIXES, ".npy"))
    net = _network(args)
    lq = _read(args.lq).to(next(net.parameters()).device)
    arguments = args.temperature, args.num_samples, args.seed
    values = sample_std(net, lq, *arguments, tile=args.tile or "auto", progress=True, resample=args.resample)
    _write_map(args.output, values, "grey levels")


def _add_nll_map_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path, metavar="HR", help="HR image")
    parser.add_argument("--lq", type=Path, help=LQ_HELP.format("HR"))
    _add_common_arguments(parser, "map in colour, an image; .npy: the numbers, in bits per dimension")


def _nll_map(args: argparse.Namespace) -> None:
    _check_output(args.output, (*IMAGE_SUFFIXES, ".npy"))
    net = _network(args)
    _write_map(args.output, nll_map(net, *_pair(args.image, args.lq, net)), "bits/dim")


# -- files -------------------------------------------------------------------------------------------------------------


def _network(args: argparse.Namespace) -> SRFlowNet:
    device = args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine has no GPU that torch can use; use --device cpu")
    return load_network(args.checkpoint).to(device)


def _check_output(path: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> None:
    """Before any work: is it a name that can be written, and is nothing there?"""
    if suffixes and path.suffix.lower() not in suffixes:
        raise UserError(f"{path} must end in {' or '.join(suffixes)}")
    check_new_file(path)


def _read(path: Path) -> Tensor:
    return img2tensor(read_image(path) / np.float32(255))[None]


def _pair(path: Path, lq_path: Path | None, net: SRFlowNet, like: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """An HR image, cropped to a multiple of the scale, and its LR image: (1, 3, H, W) and (1, 3, h, w)."""
    image = read_image(path)
    height, width = (size - size % net.scale for size in image.shape[:2])
    if not height or not width:
        raise UserError(f"{path} is smaller than {net.scale} pixels")
    if (height, width) != image.shape[:2]:
        sys.stderr.write(f"{path}: cropped to {width}x{height}, a multiple of {net.scale}\n")
    image = image[:height, :width]
    if like is not None and (height, width) != like.shape[2:]:
        raise UserError(f"{path} has {width}x{height} pixels, not {like.shape[3]}x{like.shape[2]} as the other image")
    small = read_image(lq_path) if lq_path else bicubic_downscale(image, net.scale)
    if small.shape[:2] != (height // net.scale, width // net.scale):
        expected = f"{width // net.scale}x{height // net.scale}"
        raise UserError(f"{lq_path} has {small.shape[1]}x{small.shape[0]} pixels; {path} needs {expected}")
    device = next(net.parameters()).device
    gt, lq = (img2tensor(picture / np.float32(255))[None].to(device) for picture in (image, small))
    return gt, lq


def _picture(image: Tensor) -> np.ndarray:
    """(1, 3, H, W) -> uint8 BGR, rounded."""
    where = exploded(image)
    if where.any():
        sys.stderr.write(
            f"{int(where.sum())} of {where.numel()} pixels are not finite or far outside [0, 1]: the network does not "
            "know such an image; nearer latents or a lower temperature help (docs/exploding_samples.md)\n"
        )
    return tensor2img(image)


def _write(path: Path, picture: np.ndarray) -> None:
    write_image(path, picture)
    sys.stdout.write(f"{path} is written.\n")


def _write_map(path: Path, values: Tensor, unit: str) -> None:
    numbers = values[0].cpu().numpy()
    sys.stdout.write(f"mean {numbers.mean():.4f} {unit}\n")
    if path.suffix == ".npy":
        with complete_or_absent(path) as unfinished, unfinished.open("wb") as file:
            np.save(file, numbers)
        sys.stdout.write(f"{path} is written.\n")
    else:
        _write(path, heat_map(numbers, unit))


LATENT_TOOLS = {
    "encode": ("turn an HR image into latents", _add_encode_arguments, _encode),
    "decode": ("turn latents into the HR image", _add_decode_arguments, _decode),
    "interpolate": ("go from one HR image to another through latents", _add_interpolate_arguments, _interpolate),
    "transfer": ("harmonise an edited HR image with the original's LR image", _add_transfer_arguments, _transfer),
    "restore": ("restore a degraded HR image by normalising its latents", _add_restore_arguments, _restore),
    "std-map": ("show where samples differ: per-pixel standard deviation", _add_std_map_arguments, _std_map),
    "nll-map": ("show where the model is surprised: bits per dimension by pixel", _add_nll_map_arguments, _nll_map),
}
