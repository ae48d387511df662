"""Edits that an invertible model can make (SRFlow, section 4): through latents and back.

Images are RGB in [0, 1]: ``gt`` (B, 3, scale*h, scale*w), ``lq`` (B, 3, h, w); what comes back is not clamped. Networks
are in eval mode.
"""

from __future__ import annotations

import torch
from torch import Tensor

from srflow_plugin.applications.latents import interpolate_latents, normalize_latents
from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.errors import UserError


@torch.no_grad()
def interpolate(net: SRFlowNet, first: Tensor, second: Tensor, lq: Tensor, steps: int) -> Tensor:
    """Go from ``first`` to ``second``, two HR images for one LR image, both ends included: (steps, B, 3, H, W).

    All are decoded on ``lq``; what lies between is itself a possible HR image.
    """
    if not isinstance(steps, int) or steps < 2:
        raise UserError(f"steps must be a whole number from 2 on, for the two ends, not {steps}")
    features = net.features(lq)
    (start, _), (end, _) = (net.encode(image, lq, features) for image in (first, second))
    weights = (step / (steps - 1) for step in range(steps))
    return torch.stack([net.decode(interpolate_latents(start, end, weight), lq, features) for weight in weights])


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
    :func:`srflow_plugin.applications.latents.normalize_latents` for ``temperature`` and ``window``.
    """
    features = net.features(lq)
    latents, _ = net.encode(image, lq, features)
    return net.decode(normalize_latents(latents, temperature, window), lq, features)
