"""``srflow prepare``: from folders, archives or the field's data sets by name to pairs of HR and LR images."""

from __future__ import annotations

import argparse
from pathlib import Path

from srflow_plugin.cli.arguments import in_range
from srflow_plugin.errors import counted, needs
from srflow_plugin.progress import say

HELP = "make pairs of HR and MATLAB-bicubic LR images, from folders, archives or data sets by name"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="folder of HR images, archive (zip, tar) or a folder in one (a.tar/b), or a data set such as DIV2K, DF2K, "
        "CelebA, Set5 (all: docs/how-to/prepare_data.md), downloaded unless it is there",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="writes OUTPUT_HR.lmdb and OUTPUT_LRx4.lmdb, or OUTPUT/HR and OUTPUT/LRx4",
    )
    parser.add_argument("--scale", type=in_range(int, low=1), default=4, help="downscaling factor (default: 4)")
    parser.add_argument("--crop-size", type=int, help="cut HR images into tiles of that size, e.g. 480; default: whole")
    parser.add_argument(
        "--border",
        choices=["symmetric", "replicate"],
        help="border of the bicubic downscale: symmetric as in MATLAB today (default), replicate as in the common "
        "Set5, Set14, BSD100, Urban100 and Manga109 files (default for these)",
    )
    parser.add_argument(
        "--center-crop",
        type=int,
        help="cut so many HR pixels a side out of the middle first (default: 160 for CelebA, else none)",
    )
    parser.add_argument(
        "--format",
        choices=["lmdb", "png"],
        help="LMDBs to train from, or folders of PNG files (default: png for the sets to test with, else lmdb)",
    )
    parser.add_argument(
        "--downloads",
        type=Path,
        default=Path("datasets/downloads"),
        help="folder of the archives, which are fetched to it and unpacked (default: datasets/downloads)",
    )
    parser.add_argument(
        "--max-pixels",
        type=in_range(int, low=1),
        default=89_478_485,
        help="largest number of pixels of an image; larger ones are refused, since each takes 22 bytes of memory "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=in_range(int, low=1, most=512),
        help="number of processes (default: all cores, fewer for few images)",
    )


def run(args: argparse.Namespace) -> None:
    with needs("train", "srflow prepare"):
        from srflow_plugin.data.prepare import write_pairs
        from srflow_plugin.data.sources import agreed, images_of, known_sets_of

    known = known_sets_of(args.sources)
    border = args.border or agreed("border", known, "symmetric")
    center_crop = args.center_crop or agreed("center_crop", known, None)
    kind = args.format or agreed("kind", known, "lmdb")
    images = [image for source in args.sources for image in images_of(source, args.downloads)]
    names = (f"_HR.{kind}", f"_LRx{args.scale}.{kind}") if kind == "lmdb" else ("/HR", f"/LRx{args.scale}")
    hr, lr = (Path(f"{args.output}{name}") for name in names)
    count = write_pairs(images, hr, lr, args.scale, args.crop_size, border, args.workers, center_crop, args.max_pixels)
    say(f"{counted(count, 'pair')} from {counted(len(images), 'image')}: {hr}, {lr}")
