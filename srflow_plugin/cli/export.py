"""``srflow export``: a network for programs that run ONNX files."""

from __future__ import annotations

import argparse
from pathlib import Path

from srflow_plugin.cli import arguments
from srflow_plugin.errors import needs
from srflow_plugin.progress import say

HELP = "write a network as ONNX files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        type=Path,
        metavar="NAME.onnx",
        help="file to write, which draws at temperature 0; NAME_latents.onnx beside it takes latents, too",
    )
    arguments.add_checkpoint(parser)
    parser.add_argument(
        "--precision",
        choices=["float32", "float16"],
        default="float32",
        help="float16: the networks inside in half the space; images and latents stay float32 (default: float32)",
    )
    arguments.add_overwrite(parser)


def run(args: argparse.Namespace) -> None:
    from srflow_plugin.checkpoints.shipped import find_checkpoint
    from srflow_plugin.files import check_new_file

    arguments.check_suffix(args.target, (".onnx",))
    source = find_checkpoint(args.checkpoint, args.scale)
    check_new_file(args.target, args.overwrite)
    with needs("onnx", "srflow export"):
        from srflow_plugin.integrations.onnx import OPSET, write_onnx

    from srflow_plugin.applications.upscale import find_network

    network = find_network(args.scale, args.checkpoint, "cpu", "float32")
    for path, size, error in write_onnx(network, args.target, args.precision, args.overwrite, source):
        say(f"{path}: {size / 1e6:.1f} MB, opset {OPSET}; within {error:.1g} of the network in onnxruntime")
