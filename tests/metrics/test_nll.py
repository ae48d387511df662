"""NLL as a metric."""

from __future__ import annotations

import numpy as np
import pytest

from srflow_plugin.metrics.samples import measure


def test_other_models_have_no_likelihood(photograph: np.ndarray) -> None:
    with pytest.raises(ValueError, match="only model_type SRFlowModel has a likelihood"):
        measure([photograph], photograph, None, {"type": "calculate_nll"})
    assert measure([photograph], photograph, None, {"type": "calculate_nll"}, nll=1.5) == 1.5
