"""Latents as data: kept in files, interpolated, normalised.

Latents are a list of tensors (B, C, H, W), finest first, as ``SRFlowNet.encode`` returns them. Under the model those of
a real image are N(0, I).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from srflow_plugin.errors import UserError

MIN_STD = 1e-3  # of a flat patch; keeps its float errors from becoming content


def save_latents(path: str | Path, latents: Sequence[Tensor], lq: Tensor) -> None:
    """Write latents and the LR images (B, 3, h, w) that they belong to as a safetensors file."""
    tensors = {f"latent_{index}": latent.detach().cpu().contiguous() for index, latent in enumerate(latents)}
    save_file({**tensors, "lq": lq.detach().cpu().contiguous()}, path)


def read_latents(path: str | Path) -> tuple[list[Tensor], Tensor]:
    """Latents and LR images that :func:`save_latents` wrote.

    Raises:
        UserError: a file that is not there, cannot be read, or holds something else.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist; correct the path")
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is not a readable file of latents: {error}") from None
    names = [f"latent_{index}" for index in range(len(tensors) - 1)]
    if not names or tensors.keys() != {*names, "lq"}:
        raise UserError(f"{path} holds no latents; `srflow encode` writes a file that does")
    return [tensors[name] for name in names], tensors["lq"]


def interpolate_latents(first: Sequence[Tensor], second: Sequence[Tensor], weight: float) -> list[Tensor]:
    """Latents between two images': those of ``first`` at ``weight`` 0, of ``second`` at 1.

    Spherical: along the arc from one to the other. A straight line would pass nearer to the origin than latents of
    N(0, I) ever are, and its images would be as if of a lower temperature.
    """
    a, b = (torch.cat([latent.flatten(1) for latent in latents], dim=1) for latents in (first, second))
    cosine = F.cosine_similarity(a.double(), b.double()).clamp(-1, 1)
    angle = cosine.acos()
    # Parallel latents have no arc; there both formulas agree.
    straight = angle.sin() < 1e-6
    sine = torch.where(straight, torch.ones_like(angle), angle.sin())
    shares = [
        torch.where(straight, torch.full_like(angle, share), (share * angle).sin() / sine).view(-1, 1, 1, 1)
        for share in (1 - weight, weight)
    ]
    return [
        shares[0].to(one.dtype) * one + shares[1].to(one.dtype) * other
        for one, other in zip(first, second, strict=True)
    ]


def normalize_latents(latents: Sequence[Tensor], temperature: float = 1.0, window: int = 9) -> list[Tensor]:
    """Give each channel locally the statistics of N(0, temperature^2): mean 0, standard deviation ``temperature``.

    What the model does not expect in an image, noise for one, shows as latents far from N(0, I); this brings them back
    (SRFlow, section 3.5).

    Args:
        latents: finest first.
        temperature: standard deviation afterwards.
        window: side of the square that statistics are taken over, odd, in positions of each latent.
    """
    if window < 3 or window % 2 == 0 or temperature < 0:
        raise UserError(f"window must be odd and 3 or more, temperature >= 0, not {window} and {temperature}")

    def local_mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, window, stride=1, padding=window // 2, count_include_pad=False)

    normalized = []
    for latent in latents:
        mean = local_mean(latent)
        std = (local_mean(latent.square()) - mean.square()).clamp(min=MIN_STD**2).sqrt()
        normalized.append(temperature * (latent - mean) / std)
    return normalized
