"""The pictures and figures of docs/how-to/encode_and_edit.md: what an invertible model does with one photograph.

    python benchmarks/beyond_sampling.py CHECKPOINT FOLDER

The photograph is scikit-image's chelsea, which the quick training holds out. Prints PSNRs (RGB) to it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from srflow_plugin import bicubic_downscale, load_network
from srflow_plugin.applications.editing import restore, transfer_content
from srflow_plugin.applications.maps import nll_map, sample_std
from srflow_plugin.demo.session import psnr
from srflow_plugin.images.files import read_image
from srflow_plugin.images.pictures import comparison_grid, heat_map
from srflow_plugin.images.tensors import to_pixels, to_tensor

NOISE_SIGMA = 20
JPEG_QUALITY = 85


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="an x4 network")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the pictures go")
    args = parser.parse_args()
    net = load_network(args.checkpoint)

    image = read_image(Path(skimage.__file__).parent / "data" / "chelsea.png")[:296, 40:432]
    edited = image.copy()
    eye = np.s_[60:160, 60:180]
    edited[eye] = np.clip(image[eye] * [0.75, 1.0, 1.25] + 10, 0, 255)
    noise = np.random.default_rng(0).normal(0, NOISE_SIGMA, image.shape)
    noisy = np.clip(image + noise, 0, 255).round().astype(np.uint8)
    tensors, small = {}, {}
    for name, picture in {"image": image, "edited": edited, "noisy": noisy}.items():
        tensors[name] = to_tensor(picture)
        small[name] = to_tensor(bicubic_downscale(picture, net.scale))

    transferred = to_pixels(transfer_content(net, tensors["edited"], small["edited"], small["image"])[0])
    restored = to_pixels(restore(net, tensors["noisy"], small["noisy"], temperature=0.5)[0])
    zero = to_pixels(net.sample(small["noisy"], temperature=0)[0, 0])
    columns = [("edited", edited), ("transferred", transferred), ("noisy", noisy), ("restored", restored)]
    for name, picture in [*columns, ("tau = 0 of the noisy LR", zero)]:
        sys.stdout.write(f"{name}: {psnr(picture, image):.2f} dB\n")
    save(args.folder / "editing.jpg", comparison_grid(columns, image.shape[0]))

    nll = nll_map(net, tensors["image"], small["image"])[0].numpy()
    std = sample_std(net, small["image"], temperature=0.9, num_samples=10, seed=0)[0].numpy()
    maps = [heat_map(nll, "bits/dim"), heat_map(std, "grey levels")]
    save(args.folder / "maps.jpg", comparison_grid([("NLL", maps[0]), ("std", maps[1])], maps[0].shape[0]))


def save(path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(path, quality=JPEG_QUALITY)


if __name__ == "__main__":
    main()
