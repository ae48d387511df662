"""Code length as a metric."""

from __future__ import annotations

import numpy as np
import pytest

from srflow_plugin.metrics.samples import measure


@pytest.mark.parametrize("name", ["calculate_code_length", "calculate_nll"])
def test_other_models_have_no_likelihood(name: str, photograph: np.ndarray) -> None:
    with pytest.raises(ValueError, match="only model_type SRFlowModel has a likelihood"):
        measure([photograph], photograph, None, {"type": name})
    assert measure([photograph], photograph, None, {"type": name}, code_length=1.5) == 1.5
