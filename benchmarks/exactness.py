"""How exactly the fast path computes what the plain layers define, on real images, and what bfloat16 changes.

    python benchmarks/exactness.py CHECKPOINT HR_FOLDER LR_FOLDER

Prints the largest errors over the images of fast against plain in float32 (latents, log-density in bits per dimension,
decoded images, tau = 0.8 samples), of gradients against autograd through the plain layers, and the differences that
bfloat16 makes to the NLL and to the PSNR (RGB) of tau = 0.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from srflow_plugin import SRFlowNet, load_network  # before BasicSR, which it makes importable

# isort: split
from basicsr.utils import img2tensor

from srflow_plugin.data.images import read_image
from srflow_plugin.data.prepare import find_images
from srflow_plugin.flow import bits_per_dimension, standard_normal_log_prob

PATCH = 32  # LR pixels, of the gradients' images


def plain_nll(network: SRFlowNet, gt: Tensor, lq: Tensor) -> tuple[list[Tensor], Tensor]:
    """Latents and NLL by the layers' own forward."""
    gt, lq = (network._pad(image, multiple * network.lq_multiple) for image, multiple in ((gt, network.scale), (lq, 1)))
    latents, logdet = network.flow(gt, network.encoder(lq))
    log_prob = logdet + torch.stack([standard_normal_log_prob(latent) for latent in latents]).sum(0)
    return latents, bits_per_dimension(log_prob, sum(latent[0].numel() for latent in latents))


def plain_decode(network: SRFlowNet, latents: list[Tensor], lq: Tensor) -> Tensor:
    """Image by the layers' own inverse."""
    image, _ = network.flow.inverse(latents, network.encoder(network._pad(lq, network.lq_multiple)))
    return image[:, :, : network.scale * lq.shape[2], : network.scale * lq.shape[3]]


def errors(network: SRFlowNet, half: SRFlowNet, gt: Tensor, lq: Tensor) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    drawn = [0.8 * torch.randn(1, *shape, generator=generator) for shape in network.latent_shapes(*lq.shape[2:])]
    with torch.no_grad():
        latents, _ = network.encode(gt, lq)
        nll = network(gt, lq)
        plain_latents, plain = plain_nll(network, gt, lq)
        pairs = {
            "latents": [(a, b) for a, b in zip(latents, plain_latents, strict=True)],
            "NLL, bits per dimension": [(nll, plain)],
            "decoded latents of the image": [(network.decode(latents, lq), plain_decode(network, latents, lq))],
            "tau = 0.8 sample": [(network.sample(lq, 0.8, seed=0)[0], plain_decode(network, drawn, lq))],
        }
        result = {name: max((a - b).abs().max().item() for a, b in both) for name, both in pairs.items()}
        zeros = [net.sample(lq, 0)[0].clamp(0, 1) for net in (network, half)]
        psnrs = [-10 * (zero - gt).square().mean().log10().item() for zero in zeros]
        result["bfloat16: NLL, bits per dimension"] = (half(gt, lq) - nll).abs().item()
        result["bfloat16: PSNR of tau = 0, dB"] = abs(psnrs[0] - psnrs[1])
    return result


def gradient_error(network: SRFlowNet, gt: Tensor, lq: Tensor) -> float:
    """Largest error of a parameter's gradient, relative to that gradient's norm."""
    parameters = list(network.parameters())
    ours = torch.autograd.grad(network(gt, lq).mean(), parameters)
    theirs = torch.autograd.grad(plain_nll(network, gt, lq)[1].mean(), parameters)
    return max(((a - b).norm() / b.norm()).item() for a, b in zip(ours, theirs, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    parser.add_argument("hr", type=Path, metavar="HR_FOLDER")
    parser.add_argument("lr", type=Path, metavar="LR_FOLDER", help="with the same names")
    args = parser.parse_args()
    network, half = (load_network(args.checkpoint, precision=precision) for precision in ("float32", "bfloat16"))
    largest: dict[str, float] = {}
    for path in find_images(args.hr):
        gt, lq = (img2tensor(read_image(folder / path.name) / 255.0)[None] for folder in (args.hr, args.lr))
        found = errors(network, half, gt, lq)
        side = network.scale * PATCH
        patch = (gt[:, :, :side, :side], lq[:, :, :PATCH, :PATCH])
        found["gradients, relative, float32"] = gradient_error(network, *patch)
        double = network.double()
        found["gradients, relative, float64"] = gradient_error(double, patch[0].double(), patch[1].double())
        network.float()
        for name, error in found.items():
            largest[name] = max(largest.get(name, 0.0), error)
    for name, error in largest.items():
        sys.stdout.write(f"| {name} | {error:.1e} |\n")


if __name__ == "__main__":
    main()
