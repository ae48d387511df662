"""The one loss of a normalizing flow."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn


class NLLLoss(nn.Module):
    """Negative log-likelihood in bits per dimension, as SRFlowNet returns it for each image of the batch.

    Args:
        loss_weight: factor.
        reduction: "mean", "sum" or "none" over the batch.
    """

    def __init__(self, loss_weight: float = 1.0, reduction: Literal["mean", "sum", "none"] = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction must be mean, sum or none, not {reduction!r}")
        self.loss_weight = loss_weight
        self.reduction = reduction

    def forward(self, nll: Tensor) -> Tensor:
        """(B,) -> scalar, or (B,) with reduction="none"."""
        loss = self.loss_weight * nll
        return loss if self.reduction == "none" else getattr(loss, self.reduction)()
