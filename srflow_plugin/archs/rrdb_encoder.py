"""The LR encoder: an RRDB network whose features condition the flow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srflow_plugin.archs.rrdb import make_trunk
from srflow_plugin.flow import Context, fast
from srflow_plugin.flow.compiled import compiled


class RRDBEncoder(nn.Module):
    """RRDB network g(x) of ESRGAN without its image output; it returns one context for each flow level.

    Level l works at ``scale / 2^l`` of the LR size. Its context is the encoder's own features of that size followed by
    the outputs of ``feature_blocks``, resized to it by nearest neighbour. Only what some level reads is computed.

    Args:
        num_in_ch, num_feat, num_grow_ch, num_block: as in BasicSR's RRDBNet.
        feature_blocks: the RRDBs, counted from 0, whose outputs every level gets.
        scale: upscaling factor, a power of 2.
        num_levels: number of flow levels.
        recompute: with gradients, compute a block's activations again in the backward pass instead of keeping them.
        skip: what the trunk convolution's output is added to: the output of the "last_block" (released SRFlow) or of
            "conv_first" (ESRGAN and BasicSR's RRDBNet).

    Attributes:
        compiled: blocks run through a compiler (:mod:`srflow_plugin.flow.compiled`); False at first.
    """

    def __init__(
        self,
        num_in_ch: int,
        num_feat: int,
        num_grow_ch: int,
        num_block: int,
        feature_blocks: Sequence[int],
        scale: int,
        num_levels: int,
        skip: Literal["last_block", "conv_first"] = "last_block",
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.recompute = recompute
        self.compiled = False
        self.skip = skip
        self.feature_blocks = tuple(feature_blocks)
        self.level_scales = [scale / 2**level for level in range(1, num_levels + 1)]
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, padding=1)
        self.body = make_trunk(num_block, num_feat, num_grow_ch)
        self.conv_body = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        num_upsamplings = sum(level_scale > 1 for level_scale in self.level_scales)
        self.upconvs = nn.ModuleList(nn.Conv2d(num_feat, num_feat, 3, padding=1) for _ in range(num_upsamplings))
        self.out_channels = num_feat * (1 + len(self.feature_blocks))

    def forward(self, lq: Tensor) -> list[Tensor]:
        """LR image (B, num_in_ch, h, w) -> features (B, out_channels, s_l h, s_l w), finest level first."""
        return [context.expanded() for context in self.contexts(lq)]

    def contexts(self, lq: Tensor) -> list[Context]:
        """Compute the features of each level, finest first, those of ``feature_blocks`` not enlarged."""
        features = first = self.conv_first(lq)
        block_outputs = []
        run = partial(compiled, call) if self.compiled else call
        for index, block in enumerate(self.body):
            recompute = self.recompute and torch.is_grad_enabled() and features.requires_grad
            features = fast.recomputed(run, block, features) if recompute else run(block, features)
            if index in self.feature_blocks:
                block_outputs.append(features)
        blocks = torch.cat(block_outputs, dim=1)

        trunk = self.conv_body(features) + (first if self.skip == "conv_first" else features)
        own = {1.0: trunk}
        finer, scale = trunk, 1.0
        for upconv in self.upconvs:
            enlarged = F.interpolate(finer, [2 * length for length in finer.shape[2:]], mode="nearest")
            finer, scale = F.leaky_relu(upconv(enlarged), 0.2), scale * 2
            own[scale] = finer
        coarser, scale = trunk, 1.0
        while scale > self.level_scales[-1]:
            halves = [length // 2 for length in coarser.shape[2:]]  # in whole numbers, which exporters can follow
            coarser, scale = F.interpolate(coarser, halves, mode="bilinear", align_corners=False), scale / 2
            own[scale] = coarser

        contexts = []
        for scale in self.level_scales:
            context = Context(own[scale], blocks)
            contexts.append(context if scale > 1 else Context(context.expanded()))
        return contexts


def call(block: nn.Module, x: Tensor) -> Tensor:
    """Call a block of the trunk."""
    output: Tensor = block(x)
    return output
