"""NLL as a metric: what a validation computes beside the samples."""

from __future__ import annotations

from typing import Any

import numpy as np


def calculate_nll(
    img: np.ndarray | None = None, img2: np.ndarray | None = None, nll: float | None = None, **kwargs: Any
) -> float:
    """Bits per dimension of the ground truth, :meth:`SRFlowNet.code_length`; SRFlowModel hands it over as ``nll``.

    It does not depend on samples and temperature, so a validation has it once.

    Raises:
        ValueError: another model, which has no likelihood.
    """
    if nll is None:
        raise ValueError("only model_type SRFlowModel has a likelihood")
    return nll
