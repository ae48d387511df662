"""The loss of a flow."""

from __future__ import annotations

import pytest
import torch
from basicsr.losses import build_loss


@pytest.mark.parametrize(("reduction", "expected"), [("mean", 1.0), ("sum", 2.0), ("none", [0.5, 1.5])])
def test_weight_and_reduction(reduction: str, expected: float | list[float]) -> None:
    loss = build_loss({"type": "NLLLoss", "loss_weight": 0.5, "reduction": reduction})
    assert loss(torch.tensor([1.0, 3.0])).tolist() == expected


def test_default_is_the_mean() -> None:
    assert build_loss({"type": "NLLLoss"})(torch.tensor([1.0, 3.0])).item() == 2


def test_unknown_reduction_is_named() -> None:
    with pytest.raises(ValueError, match="mean, sum or none"):
        build_loss({"type": "NLLLoss", "reduction": "median"})
