"""Seeds of all that is random in a training: from the run's seed and the number of a draw or iteration alone."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch


def seed_everything(*numbers: int) -> None:
    """Make all that is drawn from here on depend on these numbers alone, whatever was drawn before."""
    torch.manual_seed(seed_cpu(*numbers))


def seed_cpu(*numbers: int) -> int:
    """Do the same for all that is drawn on the CPU, in a tenth of the time; returns the seed of torch."""
    seeds: list[int] = np.random.SeedSequence(numbers).generate_state(3).tolist()
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(seeds[2])
    return seeds[2]


def noise_seeds(seed: int, draws: Sequence[int]) -> list[int]:
    """Derive the seeds of the noise on draws, whichever process has them."""
    return [int(np.random.SeedSequence((seed, draw, 1)).generate_state(1, np.uint64)[0]) for draw in draws]
