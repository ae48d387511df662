"""LPIPS as a loss, and its shift-tolerant version, beside BasicSR's VGG-based PerceptualLoss."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from srflow_plugin.errors import needs


class LPIPSLoss(nn.Module):
    """LPIPS (Zhang et al., CVPR 2018), version 0.1, of images in [0, 1]; takes the place of a ``perceptual_opt``.

    The package ``lpips`` carries its linear weights; those of AlexNet or VGG are fetched once.

    Args:
        net: "alex" or "vgg".
        loss_weight: factor.
    """

    def __init__(self, net: Literal["alex", "vgg"] = "alex", loss_weight: float = 1.0) -> None:
        super().__init__()
        self.lpips = self.network(net).requires_grad_(False)
        self.loss_weight = loss_weight

    @staticmethod
    def network(net: Literal["alex", "vgg"]) -> nn.Module:
        """Build what compares two images."""
        from srflow_plugin.metrics.published import lpips_network  # late: metrics and losses are registered together

        network: nn.Module = lpips_network(net)
        return network

    def forward(self, x: Tensor, gt: Tensor) -> tuple[Tensor, None]:
        """(B, 3, H, W) and its ground truth -> mean distance, and None for the style loss that BasicSR's has here."""
        return self.loss_weight * self.lpips(x, gt, normalize=True).mean(), None


class STLPIPSLoss(LPIPSLoss):
    """Shift-tolerant LPIPS (Ghildyal and Liu, ECCV 2022) of images in [0, 1]; takes the place of a ``perceptual_opt``.

    Its weights come with its package, in the extra "stlpips".

    Args:
        net: "alex" or "vgg".
        loss_weight: factor.
    """

    @staticmethod
    def network(net: Literal["alex", "vgg"]) -> nn.Module:
        """Build what compares two images.

        Raises:
            UserError: the package is missing.
        """
        from srflow_plugin.metrics.published import stlpips_network

        with needs("stlpips", "STLPIPSLoss"):
            return stlpips_network(net).eval()
