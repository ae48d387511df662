"""RRDBNet for x8, to pretrain the encoder of SRFlow x8 with BasicSR's SRModel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from srflow_plugin.archs.rrdb import make_trunk


class RRDBNetX8(nn.Module):
    """BasicSR's RRDBNet, which ends at x4, with one more upsampling, ``conv_up3``.

    Args:
        num_in_ch, num_out_ch, num_feat, num_block, num_grow_ch: as in BasicSR's RRDBNet.
    """

    def __init__(
        self, num_in_ch: int, num_out_ch: int, num_feat: int = 64, num_block: int = 23, num_grow_ch: int = 32
    ) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, padding=1)
        self.body = make_trunk(num_block, num_feat, num_grow_ch)
        self.conv_body, self.conv_up1, self.conv_up2, self.conv_hr = (
            nn.Conv2d(num_feat, num_feat, 3, padding=1) for _ in range(4)
        )
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, padding=1)
        self.conv_up3 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.lrelu = nn.LeakyReLU(negative_slope=0.2, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """LR image (B, num_in_ch, h, w) -> image (B, num_out_ch, 8h, 8w)."""
        feat = self.conv_first(x)
        feat = feat + self.conv_body(self.body(feat))
        for conv_up in (self.conv_up1, self.conv_up2, self.conv_up3):
            feat = self.lrelu(conv_up(F.interpolate(feat, scale_factor=2, mode="nearest")))
        image: Tensor = self.conv_last(self.lrelu(self.conv_hr(feat)))
        return image
