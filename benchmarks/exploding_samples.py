"""Counts of samples that explode, by temperature, and the effect of drawing the exploded places again.

`python benchmarks/exploding_samples.py FOLDER net_a.pth net_b.pth ...`: FOLDER has LR images. For each checkpoint and
temperature: the share of samples with an exploded pixel (srflow_plugin/sampling/explosions.py), the share of such
pixels, values that are not finite, and the samples still exploded after `resample`. Shares of pixels are means over
samples.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from srflow_plugin import load_network
from srflow_plugin.images.files import find_images, read_image
from srflow_plugin.images.tensors import to_tensor
from srflow_plugin.sampling.explosions import exploded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="LR images, and checkpoints (.pth, .safetensors)")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2])
    parser.add_argument("--num-samples", type=int, default=5)
    parser.add_argument("--resample", type=float, default=0.8)
    args = parser.parse_args()
    images = [image for folder in args.folders if folder.is_dir() for image in find_images(folder)]
    lqs = [to_tensor(read_image(image)) for image in images]
    sys.stdout.write(f"{len(images)} images, {args.num_samples} samples each\n")
    sys.stdout.write("| checkpoint | tau | samples exploded | pixels exploded | not finite | after resample |\n")
    sys.stdout.write("|---|---|---|---|---|---|\n")
    for checkpoint in (path for path in args.folders if path.is_file()):
        network = load_network(checkpoint)
        for temperature in args.temperatures:
            samples = broken = nonfinite = left = 0
            pixels = 0.0
            for lq in tqdm(lqs, unit="image", leave=False):
                drawn = network.sample(lq, temperature, args.num_samples if temperature else 1, seed=0)[:, 0]
                where = exploded(drawn)
                samples += len(drawn)
                broken += int(where.flatten(1).any(1).sum())
                pixels += where.float().mean((1, 2)).sum().item()
                nonfinite += int((~drawn.isfinite()).sum())
                if where.any():
                    again = network.sample(lq, temperature, args.num_samples, seed=0, resample=args.resample)[:, 0]
                    left += int(exploded(again).flatten(1).any(1).sum())
            row = [checkpoint.parent.parent.name or checkpoint.stem, f"{temperature:g}", f"{broken} of {samples}"]
            row += [f"{100 * pixels / samples:.4f} %", str(nonfinite), str(left)]
            sys.stdout.write(f"| {' | '.join(row)} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
