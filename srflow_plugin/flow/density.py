"""Log-densities and their unit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """Log-density of each latent of the batch under N(0, I): (B, ...) -> (B,) in nats."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)


def latents_log_prob(latents: Sequence[Tensor]) -> Tensor:
    """Log-density of all latents of an image together under N(0, I): (B,) in nats."""
    return torch.stack([standard_normal_log_prob(latent) for latent in latents]).sum(0)


def bits_per_dimension(log_prob: Tensor, dimensions: int) -> Tensor:
    """Turn log-densities in nats into bits per dimension: ``-log p / (ln 2 * dimensions)``.

    ``dimensions`` is 3 * H * W for an RGB image. The released SRFlow code divides by H * W and so reports three times
    this value.
    """
    return -log_prob / (math.log(2) * dimensions)
