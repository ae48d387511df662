"""The one likelihood: what encoding an image gives, and its density in nats and in bits per dimension."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Encoding(NamedTuple):
    """An image of C channels, encoded: ``log p(y|x) = log N(latents; 0, I) + log|det|`` (SRFlow, eq. 2).

    Log-determinants are kept by position, so that the density is, too. All lists are finest level first.

    Attributes:
        latents: (B, C_l, H_l, W_l) each.
        local: of each level, the log-dets in nats that depend on the position, (B, 1, h, w) of each layer: scales and
            priors.
        shared: of each level, the log-det in nats that is the same at each of its positions, a scalar: ActNorms and
            1x1 convolutions.
    """

    latents: list[Tensor]
    local: list[list[Tensor]]
    shared: list[Tensor]

    @property
    def dimensions(self) -> int:
        """Number of values of one image."""
        return sum(latent[0].numel() for latent in self.latents)

    def logdet(self) -> Tensor:
        """Log-determinant of the whole map, (B,) in nats."""
        total = torch.zeros_like(self.local[0][0][:, 0, 0, 0])
        for local, shared in zip(self.local, self.shared, strict=True):
            total = total + local[0][0].numel() * shared
            for layer in local:
                total = total + layer.flatten(1).sum(1)
        return total

    def log_prob(self) -> Tensor:
        """Log-density of the image, (B,) in nats."""
        return latents_log_prob(self.latents) + self.logdet()

    def terms(self) -> tuple[Tensor, Tensor]:
        """Summands of :meth:`nll`, each (B,) in bits per dimension: that of the latents, that of the log-det."""
        prior, logdet = latents_log_prob(self.latents), self.logdet()
        return bits_per_dimension(prior, self.dimensions), bits_per_dimension(logdet, self.dimensions)

    def nll(self) -> Tensor:
        """Negative log-likelihood, (B,) in bits per dimension."""
        prior, logdet = self.terms()
        return prior + logdet

    def nll_map(self, channels: int = 3) -> Tensor:
        """Negative log-likelihood of each pixel, (B, H, W) in bits per dimension; its mean is :meth:`nll`.

        The density of a latent and the log-det of a position are shared evenly by the pixels that they stand for.
        """
        finest = self.local[0][0]
        height, width = (2 * size for size in finest.shape[2:])
        densities = [-0.5 * (latent.square() + math.log(2 * math.pi)).sum(1, True) for latent in self.latents]
        logdets = [torch.stack(local).sum(0) + shared for local, shared in zip(self.local, self.shared, strict=True)]
        log_prob = finest.new_zeros(len(finest), 1, height, width)
        for part in [*densities, *logdets]:
            pixels = height * width / (part.shape[2] * part.shape[3])
            log_prob = log_prob + F.interpolate(part, (height, width), mode="nearest") / pixels
        return bits_per_dimension(log_prob[:, 0], channels)


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """Log-density of each element of a batch under N(0, I): (B, ...) -> (B,) in nats."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)


def latents_log_prob(latents: Sequence[Tensor]) -> Tensor:
    """Log-density of all latents of an image together under N(0, I): (B,) in nats."""
    return torch.stack([standard_normal_log_prob(latent) for latent in latents]).sum(0)


def bits_per_dimension(log_prob: Tensor, dimensions: int) -> Tensor:
    """Turn log-densities in nats into bits per dimension: ``-log p / (ln 2 * dimensions)``.

    ``dimensions`` is 3 * H * W for an RGB image. The released SRFlow code divides by H * W and so reports three times
    this value.

    >>> bits_per_dimension(torch.tensor([-12 * math.log(2)]), 3 * 2 * 2)
    tensor([1.])
    """
    return -log_prob / (math.log(2) * dimensions)
