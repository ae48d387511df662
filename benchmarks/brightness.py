"""Brightness of samples: their bias in grey levels, and what it costs in LR-PSNR, of networks and of kinds of noise.

    python benchmarks/brightness.py networks --images HR_FOLDER LR_FOLDER [--border replicate] NETWORK [NETWORK ...]
    python benchmarks/brightness.py noise --from NETWORK --train FOLDER --held FOLDER

The first measures networks on 8 bit samples at tau = 0 and 0.8; NETWORK:256 gives one the setting one_sided_noise. The
second trains the flow of a network a little further with each noise setting, the same crops in each, in float32, and
measures held-out crops. "As drawn" shows a network of one-sided noise as it was before it was shifted when decoded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from srflow_plugin import SRFlowNet, bicubic_downscale, load_network
from srflow_plugin.images.files import find_images, read_image
from srflow_plugin.images.tensors import to_pixels, to_tensor

Pair = tuple[np.ndarray, np.ndarray]
NOISE: dict[str, dict[str, Any]] = {
    "none": {"noise": "none"},
    "uniform": {"noise": "uniform"},
    "uniform, one-sided": {"noise": "uniform", "one_sided_noise": 256},
    "gaussian, 4 / sqrt(3)": {"noise": "gaussian"},
    "conditional, to 4 / sqrt(3)": {"noise": "conditional"},
}
PATCH, BATCH = 64, 8
HELD_CROP = 160


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    networks = commands.add_parser("networks")
    networks.add_argument("--images", nargs=2, type=Path, required=True)
    networks.add_argument("--border", default="symmetric")
    networks.add_argument("networks", nargs="+")
    networks.set_defaults(run=compare_networks)
    noise = commands.add_parser("noise")
    noise.add_argument("--from", dest="start", required=True)
    noise.add_argument("--train", type=Path, required=True)
    noise.add_argument("--held", type=Path, required=True)
    noise.add_argument("--iterations", type=int, default=150)
    noise.set_defaults(run=compare_noise)
    args = parser.parse_args()
    args.run(args)


def compare_networks(args: argparse.Namespace) -> None:
    files = zip(*(find_images(folder) for folder in args.images), strict=True)
    pairs = [(read_image(hr), read_image(lr)) for hr, lr in files]
    sys.stdout.write("| network | tau | bias, grey levels | LR-PSNR |\n|---|---|---|---|\n")
    for name in args.networks:
        path, _, levels = name.partition(":")
        network = load_network(path, one_sided_noise=int(levels) if levels else None)
        for tau in (0, 0.8):
            bias, lr_psnr = measure(network, pairs, tau, args.border)
            sys.stdout.write(f"| {name} | {tau:g} | {bias} | {lr_psnr:.2f} |\n")


def measure(
    network: SRFlowNet, pairs: Sequence[Pair], tau: float, border: str = "symmetric", shift: float = 0
) -> tuple[str, float]:
    """Bias in grey levels with its standard error over images, and LR-PSNR, of one sample of each image."""
    biases, psnrs = [], []
    for number, (gt, lq) in enumerate(tqdm(pairs, leave=False)):
        sample = to_pixels(network.sample(to_tensor(lq), tau, seed=number, resample=0.8)[0, 0] + shift)
        biases.append(sample.astype(float).mean() - gt.mean())
        error = np.square(bicubic_downscale(sample, network.scale, border).astype(float) - lq).mean()  # type: ignore[arg-type]
        psnrs.append(10 * np.log10(255**2 / error))
    return f"{np.mean(biases):+.3f} +- {np.std(biases, ddof=1) / len(biases) ** 0.5:.3f}", float(np.mean(psnrs))


def compare_noise(args: argparse.Namespace) -> None:
    images = [read_image(path) for path in find_images(args.train)]
    held = [image[:HELD_CROP, :HELD_CROP] for image in map(read_image, find_images(args.held))]
    pairs = [(image, bicubic_downscale(image, 4)) for image in held if image.shape[:2] == (HELD_CROP, HELD_CROP)]
    taus = (0, 0.8)
    header = " | ".join(f"bias tau {tau:g} | LR-PSNR tau {tau:g}" for tau in taus)
    sys.stdout.write(f"| noise | {header} | code length |\n|---|---|---|---|---|---|\n")
    for name, setting in NOISE.items():
        network = train(start_with(args.start, setting), images, args.iterations)
        with torch.no_grad():
            bits = np.mean([network.code_length(to_tensor(gt), to_tensor(lq)).item() for gt, lq in pairs])
        for label, shift in ((name, 0.0), (f"{name}, as drawn", network.shift)):
            if shift or label == name:
                cells = [
                    f"{bias} | {psnr:.2f}" for bias, psnr in (measure(network, pairs, tau, shift=shift) for tau in taus)
                ]
                sys.stdout.write(f"| {label} | {' | '.join(cells)} | {bits:.3f} |\n")
                sys.stdout.flush()


def start_with(checkpoint: str, setting: dict[str, Any]) -> SRFlowNet:
    """Load a network and give it a noise setting; a network that is told its noise reads it with weights of 0."""
    network = load_network(checkpoint, one_sided_noise=setting.get("one_sided_noise"))
    if setting["noise"] != "conditional":
        network.noise = setting["noise"]
        return network
    told = load_network_like(network)
    state, own = network.state_dict(), network.encoder.conv_first.weight.shape[0]
    for key, value in told.state_dict().items():
        if state[key].shape != value.shape:  # the first convolutions of the conditional networks: one channel more
            kept = value.shape[1] - (state[key].shape[1] + 1) + (state[key].shape[1] - network.encoder.out_channels)
            before, after = state[key].tensor_split([kept + own], dim=1)
            state[key] = torch.cat([before, torch.zeros_like(before[:, :1]), after], dim=1)
    told.load_state_dict(state)
    return told


def load_network_like(network: SRFlowNet) -> SRFlowNet:
    """Make the network of the package's x4 file that is told its noise."""
    sizes = {"num_feat": 32, "num_grow_ch": 16, "num_block": 8, "feature_blocks": [3, 7], "num_steps": 4}
    more = {"hidden_channels": 32, "log_scale_bound": 1.2, "encoder_skip": "conv_first", "noise": "conditional"}
    return SRFlowNet(scale=network.scale, **sizes, **more)  # type: ignore[arg-type]


def train(network: SRFlowNet, images: Sequence[np.ndarray], iterations: int) -> SRFlowNet:
    """Train the flow alone, with the same crops and rates for every network."""
    network.train().encoder.requires_grad_(False)
    optimizer = torch.optim.Adam(network.flow.parameters(), lr=2e-4, betas=(0.9, 0.99))
    rng = np.random.default_rng(0)
    for iteration in tqdm(range(iterations), leave=False):
        for group in optimizer.param_groups:
            group["lr"] = 2e-4 * (1 - iteration / iterations)
        crops = [crop(images[int(rng.integers(len(images)))], rng) for _ in range(BATCH)]
        gt, lq = (torch.cat([to_tensor(image) for image in part]) for part in zip(*crops, strict=True))
        loss: Tensor = network(gt, lq, noise_seeds=range(BATCH * iteration, BATCH * (iteration + 1))).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.flow.parameters(), 10)
        optimizer.step()
    return network.eval()


def crop(image: np.ndarray, rng: np.random.Generator) -> Pair:
    top, left = (4 * int(rng.integers((size - PATCH) // 4 + 1)) for size in image.shape[:2])
    gt = np.ascontiguousarray(image[top : top + PATCH, left : left + PATCH])
    return gt, bicubic_downscale(gt, 4)


if __name__ == "__main__":
    main()
