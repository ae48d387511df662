"""Degradations on the fly: BasicSR's second-order pipeline, each image's drawn from a seed of its own.

The steps, and the order in which they draw, are those of BasicSR's RealESRNetModel.feed_data
(X. Wang et al., Real-ESRGAN, ICCVW 2021). What differs: an image is worked on alone, so that neither its batch nor the
process that has it matters; the noise is drawn on the CPU, so that the device does not matter; and an image may stay
clean.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from basicsr.data.degradations import random_add_gaussian_noise_pt, random_add_poisson_noise_pt
from basicsr.data.transforms import paired_random_crop
from basicsr.utils import DiffJPEG, USMSharp
from torch import Tensor

from srflow_plugin.images.resize import differentiable_downscale
from srflow_plugin.options.schema import Degradations
from srflow_plugin.training.seeds import seeded

ANTIALIASED = "_antialiased"


class Degrader:
    """Maker of LR images from HR images and the blur kernels that RealESRGANDataset draws.

    Args:
        options: of the degradations.
        scale: of the network.
        device: to work on.
    """

    def __init__(self, options: Degradations, scale: int, device: torch.device) -> None:
        self.options = options
        self.scale = scale
        self.device = device
        self.jpeg = DiffJPEG(differentiable=False).to(device)
        self.sharpen = USMSharp().to(device)

    @torch.no_grad()
    def __call__(self, data: dict[str, Any], seeds: Sequence[int] | None) -> dict[str, Any]:
        """Degrade a batch of RealESRGANDataset.

        Args:
            data: "gt" (B, 3, H, W), "kernel1", "kernel2" and "sinc_kernel" (B, 21, 21).
            seeds: one for each image. None: drawn from the generators as they are.

        Returns:
            ``data`` with "gt" (B, 3, gt_size, gt_size) and "lq" (B, 3, gt_size / scale, gt_size / scale), in whole grey
            levels.
        """
        columns = (data[key].to(self.device).split(1) for key in ("gt", "kernel1", "kernel2", "sinc_kernel"))
        pairs = []
        for number, image in enumerate(zip(*columns, strict=True)):
            with seeded(seeds[number]) if seeds else nullcontext():
                pairs.append(self.pair(*image))
        gt, lq = (torch.cat(patches) for patches in zip(*pairs, strict=True))
        return {**data, "gt": gt, "lq": lq}

    def pair(self, gt: Tensor, kernel1: Tensor, kernel2: Tensor, sinc_kernel: Tensor) -> tuple[Tensor, Tensor]:
        """Make a pair of patches of one image (1, 3, H, W) and its three kernels (1, 21, 21)."""
        is_clean = self.options.clean_prob > 0 and np.random.uniform() < self.options.clean_prob
        if self.options.gt_usm:
            gt = self.sharpen(gt)
        if is_clean:
            lq = differentiable_downscale(gt, self.scale)
        else:
            lq = self.second(self.first(gt, kernel1), kernel2, sinc_kernel, gt.shape[2:])
        lq = (lq * 255).round().clamp(0, 255) / 255
        gt, lq = paired_random_crop(gt, lq, self.options.gt_size, self.scale)
        return gt, lq

    def first(self, image: Tensor, kernel: Tensor) -> Tensor:
        """Apply the first process: blur, resize, noise, JPEG."""
        options = self.options
        image = blur(image, kernel)
        factor = _draw_factor(options.resize_prob, options.resize_range)
        image = self.resize(image, scale_factor=factor)
        noises = options.gaussian_noise_prob, options.noise_range, options.poisson_scale_range, options.gray_noise_prob
        return self.compress(_add_noise(image, *noises), options.jpeg_range)

    def second(self, image: Tensor, kernel: Tensor, sinc_kernel: Tensor, size: Sequence[int]) -> Tensor:
        """Apply the second process, to the LR size of an image of ``size``: blur, resize, noise; sinc filter, JPEG."""
        options = self.options
        if np.random.uniform() < options.second_blur_prob:
            image = blur(image, kernel)
        factor = _draw_factor(options.resize_prob2, options.resize_range2)
        image = self.resize(image, size=[int(length / self.scale * factor) for length in size])
        image = _add_noise(
            image,
            options.gaussian_noise_prob2,
            options.noise_range2,
            options.poisson_scale_range2,
            options.gray_noise_prob2,
        )
        lr_size = [length // self.scale for length in size]
        if np.random.uniform() < 0.5:
            return self.compress(blur(self.resize(image, size=lr_size), sinc_kernel), options.jpeg_range2)
        return blur(self.resize(self.compress(image, options.jpeg_range2), size=lr_size), sinc_kernel)

    def resize(self, image: Tensor, **to: Any) -> Tensor:
        """Resize ``to`` a size or by a factor, by a filter that is drawn."""
        mode = random.choice(self.options.resize_modes)
        antialias = mode.endswith(ANTIALIASED)
        resized: Tensor = F.interpolate(image, mode=mode.removesuffix(ANTIALIASED), antialias=antialias, **to)
        return resized

    def compress(self, image: Tensor, qualities: Sequence[float]) -> Tensor:
        """Compress as JPEG, at a quality that is drawn."""
        quality = image.new_zeros(1, device="cpu").uniform_(*qualities).to(image.device)
        compressed: Tensor = self.jpeg(image.clamp(0, 1), quality=quality)
        return compressed.contiguous()


def blur(images: Tensor, kernels: Tensor) -> Tensor:
    """Filter images (B, C, H, W) by kernels (B, k, k), mirrored at the borders.

    BasicSR's filter2D, as a product of Fourier transforms: on a CPU in a tenth of the time, on a GPU without TF32.
    """
    side = kernels.shape[-1] // 2
    extended = F.pad(images, [side] * 4, mode="reflect")
    size = extended.shape[2:]
    spectrum = torch.fft.rfft2(extended) * torch.fft.rfft2(kernels.flip(1, 2), s=size)[:, None]
    filtered: Tensor = torch.fft.irfft2(spectrum, s=size)[..., 2 * side :, 2 * side :]
    return filtered.contiguous()


def _draw_factor(probabilities: Sequence[float], factors: Sequence[float]) -> float:
    """Draw the factor of a resize: above 1, below 1, or 1."""
    direction = random.choices(["up", "down", "keep"], probabilities)[0]
    if direction == "keep":
        return 1
    return float(np.random.uniform(*((1, factors[1]) if direction == "up" else (factors[0], 1))))


def _add_noise(
    image: Tensor, gaussian_prob: float, sigmas: Sequence[float], scales: Sequence[float], gray_prob: float
) -> Tensor:
    """Add noise that is drawn on the CPU, the same for any device."""
    drawn_on = image.cpu()
    if np.random.uniform() < gaussian_prob:
        noisy = random_add_gaussian_noise_pt(drawn_on, sigmas, gray_prob)
    else:
        noisy = random_add_poisson_noise_pt(drawn_on, scales, gray_prob)
    result: Tensor = noisy.to(image.device)
    return result
