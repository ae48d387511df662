"""Maps of an image: the standard deviation over its samples, and its negative log-likelihood.

Images are RGB in [0, 1]: ``gt`` (B, 3, scale*h, scale*w), ``lq`` (B, 3, h, w). Networks are in eval mode.
"""

from __future__ import annotations

import torch
from torch import Tensor

from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.errors import UserError
from srflow_plugin.images.pictures import std_bias
from srflow_plugin.sampling.draw import draw
from srflow_plugin.sampling.tiling import Tile


def sample_std(
    net: SRFlowNet,
    lq: Tensor,
    temperature: float = 0.9,
    num_samples: int = 10,
    seed: int | None = None,
    *,
    tile: Tile = None,
    progress: bool = False,
    resample: float | None = None,
) -> Tensor:
    """Compute the standard deviation over samples at each pixel, in grey levels of 255: (B, scale*h, scale*w).

    Of the samples clamped to [0, 1], as they are seen; the mean over the three channels. Unbiased in the number of
    samples, as :func:`srflow_plugin.images.pictures.spread` is. For the rest see ``SRFlowNet.sample``.
    """
    if num_samples < 2:
        raise UserError(f"num_samples must be 2 or more to have a standard deviation, not {num_samples}")
    samples = draw(net, lq, temperature, num_samples, seed, tile=tile, progress=progress, resample=resample).images
    return 255 * samples.clamp(0, 1).std(0).mean(1) / std_bias(num_samples)


@torch.no_grad()
def nll_map(net: SRFlowNet, gt: Tensor, lq: Tensor) -> Tensor:
    """Compute the NLL of each pixel, (B, H, W), in bits per dimension: high where the model expects something else.

    The mean is the NLL of the image, ``net(gt, lq)``: of the density of a float image.
    """
    return net.likelihood(gt, lq).nll_map()


@torch.no_grad()
def code_length_map(net: SRFlowNet, gt: Tensor, lq: Tensor, seed: int = 0) -> Tensor:
    """Compute the bits per dimension of the 8 bit image that each pixel takes at most, (B, H, W).

    The mean is ``net.code_length(gt, lq, seed)``.
    """
    return net.dequantised(gt, lq, seed).nll_map()
