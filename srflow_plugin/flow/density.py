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

    A flow takes sizes that are multiples only. An image of another size is extended, and noise u of density q is added
    to what is new, at least. Then ``E[log p(y + u|x) - log q(u)]`` is at most the log-likelihood of the image itself
    (Theis et al., ICLR 2016), and one draw of it is what :meth:`terms`, :meth:`nll` and :meth:`nll_map` give. Without
    extension and noise they are exact.

    Attributes:
        latents: (B, C_l, H_l, W_l) each.
        local: of each level, the log-dets in nats that depend on the position, (B, 1, h, w) of each layer: scales and
            priors.
        shared: of each level, the log-det in nats that is the same at each of its positions, a scalar: ActNorms and
            1x1 convolutions.
        size: height and width of the image itself, if it was extended on the right and below.
        noise_nats: ``-log q`` of the noise at each pixel of the extended image, (H, W); None: there is none.
    """

    latents: list[Tensor]
    local: list[list[Tensor]]
    shared: list[Tensor]
    size: tuple[int, int] | None = None
    noise_nats: Tensor | None = None

    @property
    def extended_size(self) -> tuple[int, int]:
        """Height and width of the image that was encoded."""
        height, width = self.local[0][0].shape[2:]
        return 2 * height, 2 * width

    @property
    def channels(self) -> int:
        """Number of colours."""
        height, width = self.extended_size
        return sum(latent[0].numel() for latent in self.latents) // (height * width)

    @property
    def dimensions(self) -> int:
        """Number of values of the image itself."""
        height, width = self.size or self.extended_size
        return self.channels * height * width

    def logdet(self) -> Tensor:
        """Log-determinant of the whole map, (B,) in nats."""
        total = torch.zeros_like(self.local[0][0][:, 0, 0, 0])
        for local, shared in zip(self.local, self.shared, strict=True):
            total = total + local[0][0].numel() * shared
            for layer in local:
                total = total + layer.flatten(1).sum(1)
        return total

    def log_prob(self) -> Tensor:
        """Log-density of the image that was encoded, (B,) in nats."""
        return latents_log_prob(self.latents) + self.logdet()

    def terms(self) -> tuple[Tensor, Tensor]:
        """Summands of :meth:`nll`, each (B,) in bits per dimension: that of the latents, those of log-det and noise."""
        prior, logdet = latents_log_prob(self.latents), self.logdet()
        if self.noise_nats is not None:
            logdet = logdet - self.noise_nats.sum()
        return bits_per_dimension(prior, self.dimensions), bits_per_dimension(logdet, self.dimensions)

    def nll(self) -> Tensor:
        """Negative log-likelihood, (B,) in bits per dimension."""
        prior, logdet = self.terms()
        return prior + logdet

    def nll_map(self) -> Tensor:
        """Negative log-likelihood of each pixel, (B, H, W) in bits per dimension; its mean is :meth:`nll`.

        The density of a latent and the log-det of a position are shared evenly by the pixels that they stand for. What
        the image was extended by counts for its last row and column.
        """
        height, width = self.extended_size
        finest = self.local[0][0]
        densities = [-0.5 * (latent.square() + math.log(2 * math.pi)).sum(1, True) for latent in self.latents]
        logdets = [torch.stack(local).sum(0) + shared for local, shared in zip(self.local, self.shared, strict=True)]
        log_prob = finest.new_zeros(len(finest), 1, height, width)
        for part in [*densities, *logdets]:
            pixels = height * width / (part.shape[2] * part.shape[3])
            log_prob = log_prob + F.interpolate(part, (height, width), mode="nearest") / pixels
        log_prob = log_prob[:, 0]
        if self.noise_nats is not None:
            log_prob = log_prob - self.noise_nats
        for axis, size in enumerate(self.size or (), start=1):
            own, beyond = log_prob.tensor_split([size], dim=axis)
            inner, last = own.tensor_split([-1], dim=axis)
            log_prob = torch.cat([inner, last + beyond.sum(axis, keepdim=True)], dim=axis)
        return bits_per_dimension(log_prob, self.channels)


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
