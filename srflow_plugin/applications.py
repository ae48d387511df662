"""What an invertible model can do beyond sampling (SRFlow, section 4).

Images are RGB in [0, 1]: ``gt`` (B, 3, scale*h, scale*w), ``lq`` (B, 3, h, w); what comes back is not clamped. Networks
are in eval mode.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.errors import UserError
from srflow_plugin.flow import ConditionalNet, Split
from srflow_plugin.latents import interpolate_latents, normalize_latents


@torch.no_grad()
def interpolate(net: SRFlowNet, first: Tensor, second: Tensor, lq: Tensor, steps: int) -> Tensor:
    """Images from ``first`` to ``second``, two HR images for one LR image, both ends included: (steps, B, 3, H, W).

    All are decoded on ``lq``; what lies between is itself a possible HR image.
    """
    if steps < 2:
        raise UserError(f"steps must be 2 or more, for the two ends, not {steps}")
    (start, _), (end, _) = (net.encode(image, lq) for image in (first, second))
    return torch.stack([net.decode(interpolate_latents(start, end, step / (steps - 1)), lq) for step in range(steps)])


@torch.no_grad()
def transfer_content(net: SRFlowNet, edited: Tensor, edited_lq: Tensor, lq: Tensor) -> Tensor:
    """Harmonise an edited HR image with the LR image of the original: (B, 3, H, W).

    The latents of ``edited`` given its own LR image keep its details; decoding them on ``lq`` gives these the colours
    and the light of the original.
    """
    latents, _ = net.encode(edited, edited_lq)
    return net.decode(latents, lq)


@torch.no_grad()
def restore(net: SRFlowNet, image: Tensor, lq: Tensor, temperature: float = 0.8, window: int = 9) -> Tensor:
    """Restore a degraded HR image by normalising its latents: (B, 3, H, W).

    ``lq`` is the degraded image downscaled, which takes most of noise and of compression away. See
    :func:`srflow_plugin.latents.normalize_latents` for ``temperature`` and ``window``.
    """
    latents, _ = net.encode(image, lq)
    return net.decode(normalize_latents(latents, temperature, window), lq)


def sample_std(
    net: SRFlowNet,
    lq: Tensor,
    temperature: float = 0.9,
    num_samples: int = 10,
    seed: int | None = None,
    tile: int | Literal["auto"] | None = None,
    progress: bool = False,
    resample: float | None = None,
) -> Tensor:
    """Where samples differ: (B, scale*h, scale*w), the standard deviation over samples in grey levels of 255.

    Of the samples clamped to [0, 1], as they are seen; the mean over the three channels. For the rest see
    ``SRFlowNet.sample``.
    """
    if num_samples < 2:
        raise UserError(f"num_samples must be 2 or more to have a standard deviation, not {num_samples}")
    samples = net.sample(lq, temperature, num_samples, seed, tile, progress, resample)
    return 255 * samples.clamp(0, 1).std(0, correction=0).mean(1)


@torch.no_grad()
def nll_map(net: SRFlowNet, gt: Tensor, lq: Tensor) -> Tensor:
    """Where the model is surprised: the NLL of each pixel, (B, H, W), in bits per dimension.

    Each latent's density and each affine scale is shared evenly by the pixels that its position stands for, ActNorms
    and 1x1 convolutions, whose log-determinants know no position, by all. The mean is the NLL of the image (where H or
    W is no multiple of 2^num_levels: of the image as the network extends it).
    """
    scales: list[Tensor] = []  # log-determinants by position, (B, 1, h, w) each
    hooks = []
    for module in net.flow.modules():
        if isinstance(module, ConditionalNet):
            hooks.append(module.register_forward_hook(lambda _, args, out: scales.append(out[1].log().sum(1, True))))
        elif isinstance(module, Split):
            hooks.append(
                module.prior.register_forward_hook(lambda _, args, out: scales.append(-out[:, 1::2].sum(1, True)))
            )
    try:
        latents, logdet = net.flow(*net.flow_inputs(gt, lq))
    finally:
        for hook in hooks:
            hook.remove()
    multiple = net.scale * net.lq_multiple
    height, width = (size + -size % multiple for size in gt.shape[2:])
    without_position = logdet - sum(part.sum((1, 2, 3)) for part in scales)
    log_prob = (without_position / (height * width)).view(-1, 1, 1, 1).expand(-1, 1, height, width)
    densities = [-0.5 * (latent.square() + math.log(2 * math.pi)).sum(1, True) for latent in latents]
    for part in [*scales, *densities]:
        pixels = height * width / (part.shape[2] * part.shape[3])
        log_prob = log_prob + F.interpolate(part, (height, width), mode="nearest") / pixels
    bits = -log_prob[:, 0] / (math.log(2) * gt.shape[1])
    return bits[:, : gt.shape[2], : gt.shape[3]]
