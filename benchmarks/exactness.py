"""Exactness of the fast path against the plain layers that define it, on real images, and the effect of bfloat16.

    python benchmarks/exactness.py CHECKPOINT HR_FOLDER LR_FOLDER

Prints the largest errors over the images of fast against plain in float32 (latents, log-density in bits per dimension,
decoded images, tau = 0.8 samples); of gradients and latents of both against float64; and the differences that bfloat16
makes to the NLL and to the PSNR (RGB) of tau = 0.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from srflow_plugin import SRFlowNet, load_network  # before BasicSR, which it makes importable
from srflow_plugin.flow import bits_per_dimension, latents_log_prob
from srflow_plugin.images.files import find_images, read_image
from srflow_plugin.images.tensors import to_tensor

PATCH = 32  # LR pixels, of the gradients' images


def plain_nll(network: SRFlowNet, gt: Tensor, lq: Tensor) -> tuple[list[Tensor], Tensor]:
    """Latents and NLL by the layers' own forward."""
    latents, logdet = network.flow(*network.flow_inputs(gt, lq))
    log_prob = latents_log_prob(latents) + logdet
    return latents, bits_per_dimension(log_prob, sum(latent[0].numel() for latent in latents))


def plain_decode(network: SRFlowNet, latents: list[Tensor], lq: Tensor) -> Tensor:
    """Image by the layers' own inverse."""
    contexts = network.features(lq)
    image, _ = network.flow.inverse(latents, [context.expanded().to(lq.dtype) for context in contexts])
    image = image - network.shift
    return image[:, :, : network.scale * lq.shape[2], : network.scale * lq.shape[3]]


def errors(network: SRFlowNet, half: SRFlowNet, gt: Tensor, lq: Tensor) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    shapes = network.latent_shapes(*lq.shape[2:])
    drawn = [0.8 * torch.randn(1, *shape, generator=generator).to(lq) for shape in shapes]
    with torch.no_grad():
        latents, _ = network.encode(gt, lq)
        nll = network.encoding(gt, lq).nll()
        plain_latents, plain = plain_nll(network, gt, lq)
        pairs: dict[str, list[tuple[Tensor, Tensor]]] = {
            "latents": [(a, b) for a, b in zip(latents, plain_latents, strict=True)],
            "NLL, bits per dimension": [(nll, plain)],
            "decoded latents of the image": [(network.decode(latents, lq), plain_decode(network, latents, lq))],
            "tau = 0.8 sample": [(network.sample(lq, 0.8, seed=0)[0], plain_decode(network, drawn, lq))],
        }
        result = {name: max((a - b).abs().max().item() for a, b in both) for name, both in pairs.items()}
        zeros = [net.sample(lq, 0)[0].clamp(0, 1) for net in (network, half)]
        psnrs = [-10 * (zero - gt).square().mean().log10().item() for zero in zeros]
        result["bfloat16: NLL, bits per dimension"] = (half.encoding(gt, lq).nll() - nll).abs().item()
        result["bfloat16: PSNR of tau = 0, dB"] = abs(psnrs[0] - psnrs[1])
    return result


def compared_with_float64(network: SRFlowNet, gt: Tensor, lq: Tensor) -> dict[str, float]:
    """Measure the cost of float32 itself: errors of both paths against float64, of latents and of gradients.

    A gradient's error is relative to its norm; the largest of all parameters.
    """
    parameters = [*network.encoder.parameters(), *network.flow.parameters()]  # the NLL has none of a learned prior

    def both(*images: Tensor) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        fast_latents, _ = network.encode(images[0], images[1])
        plain_latents, plain = plain_nll(network, *images)
        gradients = [list(torch.autograd.grad(nll.mean(), parameters)) for nll in (network(*images), plain)]
        return [[latent.detach().double() for latent in latents] for latents in (fast_latents, plain_latents)], [
            [gradient.double() for gradient in path] for path in gradients
        ]

    latents, gradients = both(gt, lq)
    network.double()
    exact_latents, exact_gradients = both(gt.double(), lq.double())
    network.float()

    def worst(ours: list[Tensor], exact: list[Tensor]) -> float:
        return max(float((a - b).norm() / b.norm()) for a, b in zip(ours, exact, strict=True))

    result = {"gradients, float64: fast against plain, relative": worst(*exact_gradients)}
    for number, name in enumerate(("fast", "plain")):
        result[f"gradients, float32: {name} against float64, relative"] = worst(gradients[number], exact_gradients[1])
        distances = [(a - b).abs().max().item() for a, b in zip(latents[number], exact_latents[1], strict=True)]
        result[f"latents of a patch, float32: {name} against float64"] = max(distances)
    result["gradients, float32: fast against plain, relative"] = worst(*gradients)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    parser.add_argument("hr", type=Path, metavar="HR_FOLDER")
    parser.add_argument("lr", type=Path, metavar="LR_FOLDER", help="with the same names")
    args = parser.parse_args()
    network, half = (load_network(args.checkpoint, precision=precision) for precision in ("float32", "bfloat16"))
    largest: dict[str, float] = {}
    for path in find_images(args.hr):
        gt, lq = (to_tensor(read_image(folder / path.name)) for folder in (args.hr, args.lr))
        found = errors(network, half, gt, lq)
        side = network.scale * PATCH
        patch = (gt[:, :, :side, :side], lq[:, :, :PATCH, :PATCH])
        found |= compared_with_float64(network, *patch)
        for name, error in found.items():
            largest[name] = max(largest.get(name, 0.0), error)
    for name, error in largest.items():
        sys.stdout.write(f"| {name} | {error:.1e} |\n")


if __name__ == "__main__":
    main()
