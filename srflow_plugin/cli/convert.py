"""``srflow convert``: a checkpoint in another format, or in less space."""

from __future__ import annotations

import argparse
from pathlib import Path

from srflow_plugin.checkpoints.shipped import find_checkpoint
from srflow_plugin.cli import arguments
from srflow_plugin.files import check_new_file
from srflow_plugin.progress import say

HELP = "write a checkpoint in another format"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="IN",
        help="a checkpoint of this project, or a released SRFlow one, or srflow_x4, srflow_x4_real, srflow_x8_face "
        "of the package",
    )
    parser.add_argument("target", type=Path, metavar="OUT", help="file to write: .pth, or .safetensors")
    parser.add_argument("--to-released", action="store_true", help="write the released key names")
    parser.add_argument(
        "--param-key",
        choices=["params_ema", "params"],
        default="params_ema",
        help="take the mean over iterations or the last weights, where a file has both (default: params_ema)",
    )
    parser.add_argument(
        "--storage",
        choices=["float32", "half", "compact"],
        default="float32",
        help="numbers of the file. half: float16, half the size; compact: the RRDBs in eight bits, a third "
        "(default: float32)",
    )
    parser.add_argument(
        "--one-sided-noise",
        type=arguments.in_range(int, low=1),
        metavar="Q",
        help="write down that the network was trained with noise: uniform before version 0.3; Q: its noise_levels, 256 "
        "unless the option file said otherwise",
    )
    arguments.add_overwrite(parser)


def run(args: argparse.Namespace) -> None:
    source = find_checkpoint(args.source)
    check_new_file(args.target, args.overwrite)

    from srflow_plugin.checkpoints.convert import convert

    how = (args.to_released, args.storage, args.param_key, args.overwrite, args.one_sided_noise)
    convert(source, args.target, *how)
    say(f"{args.target} is written.")
