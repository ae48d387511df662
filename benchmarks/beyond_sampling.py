"""The pictures and figures of docs/beyond_sampling.md: what an invertible model does with one photograph.

    python benchmarks/beyond_sampling.py CHECKPOINT FOLDER

The photograph is scikit-image's chelsea, which the quick training holds out. Prints PSNRs (RGB) to it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import skimage

from srflow_plugin import bicubic_downscale, load_network  # before BasicSR, which it makes importable

# isort: split
from basicsr.metrics import calculate_psnr
from basicsr.utils import img2tensor, tensor2img

from srflow_plugin.applications import nll_map, restore, sample_std, transfer_content
from srflow_plugin.pictures import comparison_grid, heat_map

NOISE_SIGMA = 20
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 85]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="an x4 network")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the pictures go")
    args = parser.parse_args()
    net = load_network(args.checkpoint)

    image = cv2.imread(str(Path(skimage.__file__).parent / "data" / "chelsea.png"))[:296, 40:432]
    edited = image.copy()
    eye = np.s_[60:160, 60:180]
    edited[eye] = np.clip(image[eye] * [1.25, 1.0, 0.75] + 10, 0, 255)
    noise = np.random.default_rng(0).normal(0, NOISE_SIGMA, image.shape)
    noisy = np.clip(image + noise, 0, 255).round().astype(np.uint8)
    tensors, small = {}, {}
    for name, picture in {"image": image, "edited": edited, "noisy": noisy}.items():
        tensors[name] = img2tensor(picture / np.float32(255))[None]
        small[name] = img2tensor(bicubic_downscale(picture, net.scale) / np.float32(255))[None]

    transferred = tensor2img(transfer_content(net, tensors["edited"], small["edited"], small["image"]))
    restored = tensor2img(restore(net, tensors["noisy"], small["noisy"], temperature=0.5))
    zero = tensor2img(net.sample(small["noisy"], temperature=0)[0])
    columns = [("edited", edited), ("transferred", transferred), ("noisy", noisy), ("restored", restored)]
    for name, picture in [*columns, ("tau = 0 of the noisy LR", zero)]:
        sys.stdout.write(f"{name}: {calculate_psnr(picture, image, crop_border=0):.2f} dB\n")
    cv2.imwrite(str(args.folder / "editing.jpg"), comparison_grid(columns, image.shape[0]), JPEG)

    nll = nll_map(net, tensors["image"], small["image"])[0].numpy()
    std = sample_std(net, small["image"], temperature=0.9, num_samples=10, seed=0)[0].numpy()
    maps = [heat_map(nll, "bits/dim"), heat_map(std, "grey levels")]
    cv2.imwrite(
        str(args.folder / "maps.jpg"), comparison_grid([("NLL", maps[0]), ("std", maps[1])], maps[0].shape[0]), JPEG
    )


if __name__ == "__main__":
    main()
