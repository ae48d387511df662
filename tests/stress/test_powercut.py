"""Power cuts at every step of what writes files, in small; all of it: ``python -m tests.stress.powercut``."""

from __future__ import annotations

import pytest

from tests.stress.powercut import WORKS, simulated

QUICK = ("a file replaced", "checkpoints, keep_last 1", "latents", "texts", "pictures")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in WORKS]
)
def test_a_power_cut_leaves_the_old_or_the_new(name: str) -> None:
    steps, states, faults = simulated(WORKS[name], with_sync=True)
    assert steps > 5 and states > 5 and not faults, faults[0]
    assert simulated(WORKS[name], with_sync=False)[2]  # or nothing would be found
