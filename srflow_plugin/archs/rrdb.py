"""Residual in residual dense block (RRDB) of ESRGAN (Wang et al., ECCVW 2018), with BasicSR's parameter names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

RESIDUAL_SCALE = 0.2
START_SCALE = 0.1  # of the dense blocks' convolutions, against He et al.'s start


class ResidualDenseBlock(nn.Module):
    """Five convolutions, each of which sees the outputs of all before it: (B, num_feat, h, w) -> the same shape."""

    def __init__(self, num_feat: int = 64, num_grow_ch: int = 32) -> None:
        super().__init__()
        widths = [num_grow_ch] * 4 + [num_feat]
        convolutions = [
            nn.Conv2d(num_feat + index * num_grow_ch, width, 3, padding=1) for index, width in enumerate(widths)
        ]
        self.conv1, self.conv2, self.conv3, self.conv4, self.conv5 = convolutions
        self.lrelu = nn.LeakyReLU(negative_slope=0.2, inplace=True)
        with torch.no_grad():
            for conv in () if convolutions[0].weight.is_meta else convolutions:  # PyTorch would import its compiler
                nn.init.kaiming_normal_(conv.weight).mul_(START_SCALE)
                nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            outputs.append(self.lrelu(conv(torch.cat(outputs, dim=1))))
        output: Tensor = self.conv5(torch.cat(outputs, dim=1)) * RESIDUAL_SCALE + x
        return output


class RRDB(nn.Module):
    """Three dense blocks and a shortcut around them: (B, num_feat, h, w) -> the same shape."""

    def __init__(self, num_feat: int, num_grow_ch: int = 32) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (ResidualDenseBlock(num_feat, num_grow_ch) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.rdb3(self.rdb2(self.rdb1(x))) * RESIDUAL_SCALE + x
        return output


def make_trunk(num_block: int, num_feat: int, num_grow_ch: int) -> nn.Sequential:
    """Chain RRDBs."""
    return nn.Sequential(*(RRDB(num_feat, num_grow_ch) for _ in range(num_block)))
