"""``srflow prepare``: from folders, archives or the field's data sets by name to pairs of HR and LR images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from srflow_plugin.data.archives import ARCHIVE_SUFFIXES, archive_stem, split_archive, unpack
from srflow_plugin.data.known_sets import KNOWN_SETS, KnownSet, fetch
from srflow_plugin.data.prepare import find_images, write_pairs
from srflow_plugin.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="folder of HR images, archive (zip, tar) or a folder in one (a.tar/b), or a data set, downloaded unless "
        f"it is there: {', '.join(KNOWN_SETS)}",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="writes OUTPUT_HR.lmdb and OUTPUT_LRx4.lmdb, or OUTPUT/HR and OUTPUT/LRx4",
    )
    parser.add_argument("--scale", type=int, default=4, help="downscaling factor (default: 4)")
    parser.add_argument("--crop-size", type=int, help="cut HR images into tiles of that size, e.g. 480; default: whole")
    parser.add_argument(
        "--border",
        choices=["symmetric", "replicate"],
        help="of the bicubic downscale: symmetric as in MATLAB today (default), replicate as in the common Set5, "
        "Set14, BSD100, Urban100 and Manga109 files (default for these)",
    )
    parser.add_argument(
        "--center-crop",
        type=int,
        help="first cut so many HR pixels a side out of the middle (default: 160 for CelebA, else none)",
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
        help="where archives are, are fetched to and unpacked (default: datasets/downloads)",
    )
    parser.add_argument("--workers", type=int, help="processes (default: all cores, fewer for few images)")


def run(args: argparse.Namespace) -> None:
    if args.scale < 1 or (args.workers or 1) < 1:
        raise UserError("--scale and --workers must be 1 or more")
    known = [part for source in args.sources if not Path(source).exists() for part in KNOWN_SETS.get(source, [])]
    border = args.border or _agreed("border", known, "symmetric")
    center_crop = args.center_crop or _agreed("center_crop", known, None)
    kind = args.format or _agreed("kind", known, "lmdb")
    images = [image for source in args.sources for image in _images(source, args.downloads)]
    names = (f"_HR.{kind}", f"_LRx{args.scale}.{kind}") if kind == "lmdb" else ("/HR", f"/LRx{args.scale}")
    hr, lr = (Path(f"{args.output}{name}") for name in names)
    count = write_pairs(images, hr, lr, args.scale, args.crop_size, border, args.workers, center_crop)
    sys.stdout.write(f"{count} pairs from {len(images)} images: {hr}, {lr}\n")


def _images(source: str, downloads: Path) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        return find_images(path)
    archive = split_archive(path)
    if archive is not None:
        file, folder = archive
        return find_images(unpack(file, folder, downloads / archive_stem(file.name) / (folder or "images")))
    if source in KNOWN_SETS:
        return [image for part in KNOWN_SETS[source] for image in fetch(part, downloads)]
    raise UserError(
        f"{source} is no folder, archive ({', '.join(ARCHIVE_SUFFIXES)}) or known data set ({', '.join(KNOWN_SETS)})"
    )


def _agreed(setting: str, known: list[KnownSet], default: Any) -> Any:
    """What the data sets are prepared with, if it is the same for all."""
    values = {getattr(part, setting) for part in known}
    if len(values) > 1:
        option = {"border": "--border", "center_crop": "--center-crop", "kind": "--format"}[setting]
        raise UserError(f"these data sets are not prepared alike; say {option}, or prepare them one by one")
    return values.pop() if values else default


PREPARE = {
    "prepare": (
        "make pairs of HR and MATLAB-bicubic LR images, from folders, archives or data sets by name",
        add_arguments,
        run,
    ),
}
