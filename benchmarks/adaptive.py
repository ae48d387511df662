"""Temperature by place against the same temperature everywhere: quality, and grain in flat areas.

    python -m benchmarks.adaptive RESULTS.jsonl --set Set5 HR LR --set Set14 HR LR [--checkpoint NETWORK]
        [--page docs/results/adaptive.md]

One sample of each image with each setting, of the same latents. Settings beside plain temperatures: "0.8, 0.5" is
temperature 0.8 of which flat areas get the share 0.5, by the standard deviation of the LR image; "0.8, 0.5, features"
does it by that of the encoder's features. What is in RESULTS.jsonl of this network is not measured again; the tables
are of all that is there, and replace those of the page.

"Against plain" compares at equal PSNR: ST-LPIPS minus that of the plain temperature whose PSNR is the same,
interpolated for each image, with the standard error of the mean over images; nothing stands there if an image's PSNR is
none of a plain temperature's. Grain is the root mean square of the sample minus the image of temperature 0, in grey
levels, over the LR pixels with less than 2 grey levels of standard deviation around them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from basicsr.metrics import calculate_psnr
from torch import Tensor
from tqdm import tqdm

from srflow_plugin import SRFlowNet, calculate_lr_psnr, load_network
from srflow_plugin.checkpoints.shipped import find_checkpoint
from srflow_plugin.flow import Context
from srflow_plugin.images.files import find_images, read_image
from srflow_plugin.images.resize import Border
from srflow_plugin.images.tensors import to_bgr, to_pixels, to_tensor
from srflow_plugin.leaderboard.draw import fingerprint
from srflow_plugin.metrics.lpips_metric import stlpips_of_each
from srflow_plugin.sampling.adaptive import FLAT, Adaptive, local_std, smoothstep, temperature_map
from srflow_plugin.sampling.draw import draw

Row = dict[str, Any]
COLUMNS = "temperature, share", "PSNR-Y", "ST-LPIPS", "against plain", "LR-PSNR", "grain", "exploded"
MARKS = "<!-- tables of benchmarks/adaptive.py -->", "<!-- end -->"
BETWEEN = 0.1, 0.4  # quantiles of the features' deviation between which the map of features rises


class Setting(NamedTuple):
    """One way to draw."""

    temperature: float
    share: float | None = None
    by_features: bool = False

    @property
    def name(self) -> str:
        share = "" if self.share is None else f", {self.share:g}"
        return f"{self.temperature:g}{share}{', features' if self.by_features else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--set", nargs=3, action="append", required=True, metavar=("NAME", "HR", "LR"), dest="sets")
    parser.add_argument("--checkpoint", default="srflow_x4")
    parser.add_argument("--plain", type=float, nargs="+", default=[0, 0.6, 0.7, 0.8, 0.9])
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.8, 0.9], help="of temperatures by place")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.3, 0.5, 0.7, 1.25])
    parser.add_argument("--border", choices=get_args(Border), default="replicate", help="how the LR images were made")
    parser.add_argument("--page", type=Path, help="Markdown page to put the tables on, between its marks")
    args = parser.parse_args()
    settings = [Setting(temperature) for temperature in sorted({0.0, *args.plain})]
    settings += [Setting(temperature, share) for temperature in args.temperatures for share in args.shares]
    settings += [Setting(max(args.temperatures), share, by_features=True) for share in (0.5, 1.25)]
    checkpoint = find_checkpoint(args.checkpoint)
    network, weights = load_network(checkpoint), fingerprint(checkpoint)
    rows = [json.loads(line) for line in args.results.read_text().splitlines()] if args.results.exists() else []
    rows = [row for row in rows if row["network"] == weights]
    done = {(row["set"], row["image"], row["setting"]) for row in rows}
    pairs: list[tuple[str, Path, Path]] = []
    for name, *folders in args.sets:
        images, small = (find_images(Path(folder)) for folder in folders)
        pairs += [(name, *pair) for pair in zip(images, small, strict=True)]
    with args.results.open("a") as file:
        for number, (name, hr, lr) in enumerate(tqdm(pairs, unit="image")):
            left = [setting for setting in settings if (name, hr.name, setting.name) not in done]
            for row in measured(network, read_image(hr), read_image(lr), left, number, args.border):
                rows.append({"network": weights, "set": name, "image": hr.name, **row})
                file.write(json.dumps(rows[-1]) + "\n")
            file.flush()
    sys.stdout.write(tables(rows))
    if args.page:
        text = args.page.read_text()
        before, after = text[: text.index(MARKS[0])], text[text.index(MARKS[1]) :]
        args.page.write_text(f"{before}{MARKS[0]}\n\n{tables(rows)}\n{after}")


@torch.no_grad()
def measured(
    network: SRFlowNet, gt: np.ndarray, lr: np.ndarray, settings: Sequence[Setting], seed: int, border: Border
) -> Iterator[Row]:
    """Draw an image with each setting and measure it."""
    if not settings:
        return
    lq = to_tensor(lr)
    features = network.features(lq)
    centre = network.sample(lq, 0, features=features)[0]
    flat = local_std(255 * lq)[0, 0] < FLAT
    rows, pictures = [], []
    for setting in settings:
        by_place: Adaptive = setting.share
        if setting.by_features:
            by_place = features_map(features, lq, setting.share or 0)
        elif setting.share is not None and setting.share > 1:
            by_place = temperature_map(lq, setting.share)
        drawn = draw(network, lq, setting.temperature, seed=seed, features=features, adaptive=by_place)
        sample = drawn.images[0]
        pictures.append(to_bgr(to_pixels(sample[0])))
        differences = F.avg_pool2d((255 * (sample - centre)).square().mean(1, keepdim=True), network.scale)[0, 0]
        grain = float(differences[flat].mean().sqrt()) if flat.any() else None
        rows.append({"setting": setting.name, "exploded": drawn.exploded, "grain": grain})
    distances = stlpips_of_each(pictures, to_bgr(gt))
    for row, picture, distance in zip(rows, pictures, distances, strict=True):
        psnr = calculate_psnr(picture, to_bgr(gt), crop_border=network.scale, test_y_channel=True)
        lr_psnr = calculate_lr_psnr(picture, to_bgr(gt), lq=to_bgr(lr), scale=network.scale, lr_border=border)
        yield {**row, "psnr": float(psnr), "lr_psnr": float(lr_psnr), "stlpips": distance}


def features_map(features: Sequence[Context], lq: Tensor, share: float) -> Tensor:
    """Compute factors of the temperature from the deviation of the encoder's features around each LR pixel."""
    std = F.adaptive_avg_pool2d(local_std(features[0].own.float()), (lq.shape[2], lq.shape[3]))
    low, high = (float(std.quantile(quantile)) for quantile in BETWEEN)
    return share + (1 - share) * smoothstep((std - low) / (high - low))


def tables(rows: Sequence[Row]) -> str:
    """Make a table of each set."""
    parts = []
    for name in dict.fromkeys(row["set"] for row in rows):
        of_set: dict[str, dict[str, Row]] = {}  # by setting and image
        for row in rows:
            if row["set"] == name:
                of_set.setdefault(row["setting"], {})[row["image"]] = row
        images = len(of_set["0"])
        lines = "".join(_line(setting, list(of_image.values()), of_set) for setting, of_image in of_set.items())
        header = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|\n"
        parts.append(f"{name}, {images} images:\n\n{header}{lines}")
    return "\n".join(parts)


def _line(setting: str, rows: Sequence[Row], of_set: dict[str, dict[str, Row]]) -> str:
    def mean(key: str) -> float:
        return float(np.mean([row[key] for row in rows if row[key] is not None]))

    against = ""
    if "," in setting:
        differences = [row["stlpips"] - plain_stlpips(row, of_set) for row in rows]
        if len(differences) > 1 and np.isfinite(differences).all():
            against = f"{np.mean(differences):+.4f} ± {np.std(differences, ddof=1) / len(differences) ** 0.5:.4f}"
    cells = [setting, f"{mean('psnr'):.2f}", f"{mean('stlpips'):.4f}", against, f"{mean('lr_psnr'):.2f}"]
    cells += [f"{mean('grain'):.2f}", f"{sum(row['exploded'] for row in rows)}"]
    return f"| {' | '.join(cells)} |\n"


def plain_stlpips(row: Row, of_set: dict[str, dict[str, Row]]) -> float:
    """Interpolate an image's ST-LPIPS of plain temperatures at a PSNR; NaN beyond theirs."""
    plain = sorted((one[row["image"]] for setting, one in of_set.items() if "," not in setting), key=_psnr)
    psnrs, distances = [_psnr(one) for one in plain], [one["stlpips"] for one in plain]
    return float(np.interp(row["psnr"], psnrs, distances, left=np.nan, right=np.nan))


def _psnr(row: Row) -> float:
    return float(row["psnr"])


if __name__ == "__main__":
    main()
