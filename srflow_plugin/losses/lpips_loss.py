"""LPIPS as a loss, beside BasicSR's VGG-based PerceptualLoss."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn


class LPIPSLoss(nn.Module):
    """LPIPS (Zhang et al., CVPR 2018), version 0.1, of images in [0, 1]; takes the place of a ``perceptual_opt``.

    The package ``lpips`` carries its linear weights; those of AlexNet or VGG are fetched once.

    Args:
        net: "alex" or "vgg".
        loss_weight: factor.
    """

    def __init__(self, net: Literal["alex", "vgg"] = "alex", loss_weight: float = 1.0) -> None:
        super().__init__()
        from srflow_plugin.metrics.published import lpips_network  # late: metrics and losses are registered together

        self.lpips = lpips_network(net).requires_grad_(False)
        self.loss_weight = loss_weight

    def forward(self, x: Tensor, gt: Tensor) -> tuple[Tensor, None]:
        """(B, 3, H, W) and its ground truth -> mean distance, and None for the style loss that BasicSR's has here."""
        return self.loss_weight * self.lpips(x, gt, normalize=True).mean(), None
