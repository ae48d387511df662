"""RRDBNet for x8, to pretrain the encoder of SRFlow x8 with BasicSR's SRModel."""

from __future__ import annotations

import torch.nn.functional as F
from basicsr.archs.rrdbnet_arch import RRDBNet
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn


@ARCH_REGISTRY.register()
class RRDBNetX8(RRDBNet):
    """BasicSR's RRDBNet, which ends at x4, with one more upsampling, ``conv_up3``.

    Args:
        num_in_ch, num_out_ch, num_feat, num_block, num_grow_ch: as in RRDBNet.
    """

    def __init__(
        self, num_in_ch: int, num_out_ch: int, num_feat: int = 64, num_block: int = 23, num_grow_ch: int = 32
    ) -> None:
        super().__init__(num_in_ch, num_out_ch, 4, num_feat, num_block, num_grow_ch)
        self.conv_up3 = nn.Conv2d(num_feat, num_feat, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """LR image (B, num_in_ch, h, w) -> image (B, num_out_ch, 8h, 8w)."""
        feat = self.conv_first(x)
        feat = feat + self.conv_body(self.body(feat))
        for conv_up in (self.conv_up1, self.conv_up2, self.conv_up3):
            feat = self.lrelu(conv_up(F.interpolate(feat, scale_factor=2, mode="nearest")))
        return self.conv_last(self.lrelu(self.conv_hr(feat)))
