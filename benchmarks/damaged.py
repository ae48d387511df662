"""Damaged pictures: bicubic and networks on LR images with JPEG, noise and camera blur; tables of docs/results.

    python -m benchmarks.damaged FOLDER NETWORK... --photographs Set5=HR_FOLDER... --faces faces=HR_FOLDER [--page PAGE]

The LR images are made of the HR images as MATLAB does, and damaged, the same each time: camera blur is a Gaussian over
the HR image, before it is made smaller; noise is Gaussian, of the LR image, seeded by the file's name; JPEG is
Pillow's, with the colours at half of the resolution (4:2:0), as cameras and the web have it. A network is a file, one
of the package by its name, NAME=FILE, or the option file (.yml) of a network that makes one image. FOLDER keeps the
numbers of each image by the hash of the network's file: a second run measures what is new.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Iterator, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from benchmarks._measure import ROOT, replace_between
from srflow_plugin import SRFlowNet, bicubic_downscale, load_network
from srflow_plugin.checkpoints.shipped import find_checkpoint
from srflow_plugin.errors import UserError
from srflow_plugin.files import write_whole
from srflow_plugin.images.files import find_images, read_image, write_image
from srflow_plugin.images.resize import Border, bicubic_upscale
from srflow_plugin.images.tensors import to_pixels, to_tensor
from srflow_plugin.leaderboard.draw import OPTION_SUFFIXES, Settings, fingerprint, image_network
from srflow_plugin.leaderboard.records import Records
from srflow_plugin.leaderboard.score import metric_sections
from srflow_plugin.leaderboard.sets import BenchmarkSet, Pair, find_set, read_pair
from srflow_plugin.metrics.samples import Samples
from srflow_plugin.options.files import load_options
from srflow_plugin.sampling.draw import draw
from srflow_plugin.sampling.temperature import LEARNED, Temperature, is_random, label

SETTINGS = Settings(  # of metrics
    seed=0, resample=None, distance="stlpips", net="alex", lr_border="", tile=None, niqe=False, device="cpu"
)
METRICS = {"psnr_y": ("PSNR-Y, dB", 2), "distance": ("ST-LPIPS, lower is better", 4), "lr_psnr": ("LR-PSNR, dB", 2)}
OF_SAMPLES = {"diversity": ("S2, %", 1), "exploded": ("exploded samples", 0)}
TEMPERATURE = 0.8  # of samples; tau = 0 beside it
CLEAN_TEMPERATURES = (0.0, TEMPERATURE, 0.9)
SAMPLES = 2  # of each image
MARKS = "<!-- tables of benchmarks/damaged.py -->", "<!-- end -->"
BICUBIC = "bicubic"
Row = dict[str, Any]  # of results.json


class Damage(NamedTuple):
    """Damage to an LR image, in the order in which it comes about."""

    name: str
    blur: float = 0  # standard deviation in HR pixels
    noise: float = 0  # standard deviation in grey levels, of 255
    quality: int | None = None  # of JPEG


CLEAN = Damage("clean")
DAMAGES = [
    CLEAN,
    *(Damage(f"JPEG {quality}", quality=quality) for quality in (95, 75, 50)),
    *(Damage(f"noise {noise}", noise=noise) for noise in (5, 10, 15)),
    *(Damage(f"noise {noise}, JPEG {quality}", 0, noise, quality) for noise, quality in ((5, 95), (10, 75), (15, 50))),
    *(Damage(f"blur {blur:g}", blur) for blur in (1.0, 2.0)),
]


class Kind(NamedTuple):
    """Kind of data sets: how their LR images are made."""

    scale: int
    border: Border
    crop: int | None  # side of the middle of the HR image that is taken
    damages: Sequence[Damage]


PHOTOGRAPHS = Kind(4, "replicate", None, DAMAGES)
FACES = Kind(8, "symmetric", 160, [CLEAN])


class DamagedSet(NamedTuple):
    """Data set with one damage, as files."""

    name: str
    kind: Kind
    damage: Damage
    files: BenchmarkSet


class Network(NamedTuple):
    """Network by its name in tables; without a source it is bicubic enlargement."""

    name: str
    scale: int | None = None  # None: any
    source: Path | None = None
    has_prior: bool = False  # a learned one

    @property
    def is_flow(self) -> bool:
        """Say whether it draws samples."""
        return self.source is not None and self.source.suffix not in OPTION_SUFFIXES

    @property
    def digest(self) -> str:
        """First digits of the SHA-256 of its file."""
        return fingerprint(self.source) if self.source else self.name

    def load(self) -> nn.Module | None:
        """Load it; bicubic enlargement is none."""
        if self.source is None:
            return None
        return load_network(self.source) if self.is_flow else image_network(self.source)


class Column(NamedTuple):
    """Column of a table: a network at a temperature; None for what makes one image."""

    network: Network
    tau: Temperature | None

    @property
    def title(self) -> str:
        """Name in tables."""
        return self.network.name if self.tau is None else f"{self.network.name} tau {label(self.tau)}"

    @property
    def samples(self) -> int:
        """Number of samples of each image."""
        return SAMPLES if is_random(self.tau) else 1

    @property
    def key(self) -> str:
        """Name in the records, which another file with the same name does not have."""
        return f"{self.network.digest} tau {self.tau} x{self.samples}"


# -- pictures ----------------------------------------------------------------------------------------------------------


def damaged(hr: np.ndarray, kind: Kind, damage: Damage, name: str) -> np.ndarray:
    """Make an LR image and damage it; ``name`` seeds the noise."""
    blurred = cv2.GaussianBlur(hr, (0, 0), damage.blur, borderType=cv2.BORDER_REPLICATE) if damage.blur else hr
    lq = bicubic_downscale(blurred, kind.scale, kind.border)
    if damage.noise:
        noise = np.random.default_rng(zlib.crc32(name.encode())).normal(0, damage.noise, lq.shape)
        lq = (lq + noise).round().clip(0, 255).astype(np.uint8)
    return compressed(lq, damage.quality) if damage.quality else lq


def compressed(image: np.ndarray, quality: int) -> np.ndarray:
    """Save an image as JPEG with colours at half of the resolution, and read it again."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file).convert("RGB"))


def make_sets(work: Path, name: str, folder: Path, kind: Kind) -> list[DamagedSet]:
    """Write HR images and damaged LR images of a folder's images.

    Raises:
        UserError: others of the same name are there already.
    """
    root, hr_folder = work / "sets" / name, work / "sets" / name / "HR"
    for path in find_images(folder):
        hr = cropped(read_image(path), kind)
        write_once(hr_folder / f"{path.stem}.png", hr)
        for damage in kind.damages:
            write_once(root / damage.name / f"{path.stem}.png", damaged(hr, kind, damage, path.stem))
    return [
        DamagedSet(name, kind, damage, find_set(f"{name} {damage.name}", hr_folder, root / damage.name))
        for damage in kind.damages
    ]


def cropped(image: np.ndarray, kind: Kind) -> np.ndarray:
    """Crop to the middle, if the kind says so, or to a multiple of the scale."""
    height, width = (kind.crop or side - side % kind.scale for side in image.shape[:2])
    top, left = (
        (side - kept) // 2 if kind.crop else 0 for side, kept in zip(image.shape, (height, width), strict=False)
    )
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def write_once(path: Path, pixels: np.ndarray) -> None:
    """Write an image, unless it is there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, pixels)
    elif not np.array_equal(read_image(path), pixels):
        raise UserError(f"{path} is another image than would be made now; choose an empty folder")


# -- numbers -----------------------------------------------------------------------------------------------------------


def columns_of(network: Network, damage: Damage) -> list[Column]:
    """List what a network is asked for."""
    if not network.is_flow:
        return [Column(network, None)]
    temperatures: list[Temperature] = [*(CLEAN_TEMPERATURES if damage == CLEAN else (0.0, TEMPERATURE))]
    return [Column(network, tau) for tau in [*temperatures, *([LEARNED] if network.has_prior else [])]]


def measure_all(work: Path, sets: Sequence[DamagedSet], networks: Sequence[Network]) -> list[Row]:
    """Measure what is not in the folder yet; return a row for each set, damage, network and temperature."""
    work.mkdir(parents=True, exist_ok=True)
    records, rows = Records(work / "numbers.jsonl"), []
    for network in networks:
        of_scale = [one for one in sets if network.scale in (None, one.kind.scale)]
        loaded: list[nn.Module | None] = []
        for one in tqdm(of_scale, desc=network.name, unit="set"):
            columns = columns_of(network, one.damage)
            for pair in one.files.pairs:
                missing = [column for column in columns if not records.has(one.files.name, column.key, pair.hr.name)]
                if missing:
                    loaded = loaded or [network.load()]
                    for column, values in zip(missing, measure(loaded[0], one, pair, missing), strict=True):
                        records.add(one.files.name, column.key, pair.hr.name, values)
            rows += [summed(one, column, records) for column in columns]
    write_whole(work / "results.json", json.dumps(rows, indent=1) + "\n")
    return rows


@torch.no_grad()
def measure(
    network: nn.Module | None, one: DamagedSet, pair: Pair, columns: Sequence[Column]
) -> Iterator[dict[str, float]]:
    """Draw an image's samples and measure them, as ``srflow benchmark`` does; exploded ones are not drawn again."""
    pictures = read_pair(pair)
    lq = to_tensor(pictures.lq)
    sections = metric_sections(one.kind.scale, SETTINGS._replace(lr_border=one.kind.border))
    features = network.features(lq) if isinstance(network, SRFlowNet) else None
    for column in columns:
        if isinstance(network, SRFlowNet):
            assert column.tau is not None
            drawn = draw(network, lq, column.tau, column.samples, seed=pair.number, features=features)
            images, exploded = drawn.images[:, 0], drawn.exploded
        else:
            images, exploded = (network or partial(bicubic_upscale, scale=one.kind.scale))(lq), 0
        gt, lr, *samples = (
            np.ascontiguousarray(image[..., ::-1]) for image in (pictures.gt, pictures.lq, *map(to_pixels, images))
        )
        measured = Samples(samples, gt, lr)
        names = [*METRICS, *(["diversity"] if len(samples) > 1 else [])]
        yield {**{name: measured.measure(sections[name]) for name in names}, "exploded": exploded}


def summed(one: DamagedSet, column: Column, records: Records) -> Row:
    """Make a row: means over images, and how many samples exploded."""
    values = [records.values[one.files.name, column.key, pair.hr.name] for pair in one.files.pairs]
    means = {name: float(np.mean([image[name] for image in values])) for name in values[0]}
    return {
        "set": one.name,
        "damage": one.damage.name,
        "method": column.title,
        "network": column.network.name,
        "tau": column.tau,
        "images": len(values),
        "samples": column.samples,
        **means,
        "exploded": sum(image["exploded"] for image in values),
    }


# -- tables ------------------------------------------------------------------------------------------------------------


def cell(row: Row | None, name: str) -> str:
    """Write a number of a row; nothing where there is none."""
    if row is None or name not in row or (name == "exploded" and row["tau"] is None):
        return ""
    digits = {**METRICS, **OF_SAMPLES}[name][1]
    of_all = f" of {row['images'] * row['samples']}" if name == "exploded" else ""
    return f"{row[name]:.{digits}f}{of_all}"


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def clean_table(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Make the table of undamaged LR images: a row for each method, the columns of each set beside each other."""
    by_place = {(row["set"], row["method"]): row for row in rows if row["damage"] == CLEAN.name}
    titles = {"psnr_y": "PSNR-Y", "lr_psnr": "LR-PSNR", "distance": "ST-LPIPS", "diversity": f"S{SAMPLES}"}
    titles["exploded"] = "exploded"
    header = [
        f"{name}: {title}" if not number else title for name in names for number, title in enumerate(titles.values())
    ]
    lines = [line(["", *header]), "|---" * (1 + len(header)) + "|"]
    for method in dict.fromkeys(method for name, method in by_place if name in names):
        lines.append(line([method, *(cell(by_place.get((name, method)), key) for name in names for key in titles)]))
    return "\n".join(lines) + "\n"


def damage_table(rows: Sequence[Row], metric: str) -> str:
    """Make the table of a metric: a row for each set and damage, a column for each method that has the metric."""
    title = {**METRICS, **OF_SAMPLES}[metric][0]
    drawn = {(row["set"], row["method"]) for row in rows if row["damage"] != CLEAN.name}
    shown = [row for row in rows if (row["set"], row["method"]) in drawn and cell(row, metric)]
    methods = list(dict.fromkeys(row["method"] for row in shown))
    by_place = {(row["set"], row["damage"], row["method"]): row for row in shown}
    lines = [line([title, *methods]), "|---" * (1 + len(methods)) + "|"]
    for name, damage in dict.fromkeys(place[:2] for place in by_place):
        lines.append(line([f"{name}, {damage}", *(cell(by_place.get((name, damage, one)), metric) for one in methods)]))
    return "\n".join(lines) + "\n"


def smallest_lead(rows: Sequence[Row], metric: str, method: str, other: str) -> str:
    """Make the row of how much a method is better than another at the damage where it is so least."""
    ours, theirs = (
        {(row["set"], row["damage"]): row[metric] for row in rows if row["method"] == name} for name in (method, other)
    )
    title, digits = METRICS[metric]
    sign = -1 if metric == "distance" else 1
    lead, place = min((sign * (ours[place] - theirs[place]), place) for place in ours)
    return line([method, other, title.partition(",")[0], f"{lead:+.{digits}f}", ", ".join(place)])


def verdicts(rows: Sequence[Row]) -> str:
    """Make the table of how each network stands to bicubic, and to the others, at the damage that is worst for it."""
    rows = [row for row in rows if row["damage"] != CLEAN.name]
    networks = list(dict.fromkeys(row["network"] for row in rows if row["tau"] is not None))
    lines = [line(["", "beside", "in", "smallest lead", "at"]), "|---" * 5 + "|"]
    for name in networks:
        lines.append(smallest_lead(rows, "psnr_y", f"{name} tau 0", BICUBIC))
        for other in (BICUBIC, *(f"{one} tau {TEMPERATURE:g}" for one in networks if one != name)):
            lines.append(smallest_lead(rows, "distance", f"{name} tau {TEMPERATURE:g}", other))
    return "\n".join(lines) + "\n"


def current_commit() -> str:
    """Read the commit of this clone."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout.strip() or "unknown"


def page_of(rows: Sequence[Row], networks: Sequence[Network]) -> str:
    """Make all tables, with what they are of."""
    hashes = ", ".join(f"{one.name} {one.digest}" for one in networks if one.source)
    made = f"{date.today()}, commit {current_commit()}, torch {torch.__version__}; the files' SHA-256: {hashes}."
    damaged_sets = {row["set"] for row in rows if row["damage"] != CLEAN.name}
    clean_sets = dict.fromkeys(row["set"] for row in rows)
    parts = ["\n".join(textwrap.wrap(made, 120, break_on_hyphens=False)) + "\n"]
    parts += [verdicts(rows)] if damaged_sets else []
    for names in ([one for one in clean_sets if (one in damaged_sets) == is_damaged] for is_damaged in (True, False)):
        parts += [clean_table(rows, names)] if names else []
    parts += [damage_table(rows, metric) for metric in (*METRICS, *OF_SAMPLES)] if damaged_sets else []
    return "\n".join(parts)


# -- the command -------------------------------------------------------------------------------------------------------


def find_network(word: str) -> Network:
    """Find the network that NAME=FILE, a file, or a name of the package means, and its scale."""
    name, _, file = word.rpartition("=")
    source = find_checkpoint(file)
    if source.suffix in OPTION_SUFFIXES:
        scale = load_options(source).get("network_g", {}).get("scale", PHOTOGRAPHS.scale)
        return Network(name or source.stem, scale, source)
    network = load_network(source)
    return Network(name or source.stem, network.scale, source, network.prior is not None)


def named_folder(word: str) -> tuple[str, Path]:
    """Read NAME=FOLDER."""
    name, _, folder = word.partition("=")
    if not name or not folder:
        raise argparse.ArgumentTypeError(f"NAME=FOLDER is needed, not {word}")
    return name, Path(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("networks", nargs="+", metavar="NETWORK")
    for option, what in (("--photographs", "x4, all damages"), ("--faces", "x8, the middle 160x160, clean")):
        parser.add_argument(option, nargs="+", type=named_folder, default=[], metavar="NAME=FOLDER", help=what)
    parser.add_argument("--page", type=Path, help="documentation that the tables belong to")
    args = parser.parse_args(arguments)
    try:
        networks = [Network(BICUBIC), *map(find_network, args.networks)]
        if len({one.name for one in networks}) < len(networks):
            raise UserError("two networks have one name; give one another: NAME=FILE")
        sets = [one for name, folder in args.photographs for one in make_sets(args.folder, name, folder, PHOTOGRAPHS)]
        sets += [one for name, folder in args.faces for one in make_sets(args.folder, name, folder, FACES)]
        if not sets:
            raise UserError("nothing to measure on: give --photographs or --faces")
        text = page_of(measure_all(args.folder, sets, networks), networks)
    except UserError as error:
        parser.error(str(error))
    write_whole(args.folder / "damaged.md", text)
    if args.page:
        replace_between(args.page, MARKS, text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
