"""Code length as a metric: what a validation computes beside the samples."""

from __future__ import annotations

from typing import Any

import numpy as np


def calculate_code_length(
    img: np.ndarray | None = None, img2: np.ndarray | None = None, code_length: float | None = None, **kwargs: Any
) -> float:
    """Bits per dimension of the 8 bit ground truth at most: SRFlowNet.code_length, which SRFlowModel hands over.

    It does not depend on samples and temperature, so a validation has it once.

    Raises:
        ValueError: another model, which has no likelihood.
    """
    if code_length is None:
        raise ValueError("only model_type SRFlowModel has a likelihood")
    return code_length


def calculate_nll(**kwargs: Any) -> float:
    """Compute :func:`calculate_code_length`, under the name that it had before version 0.3."""
    return calculate_code_length(**kwargs)
