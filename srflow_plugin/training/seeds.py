"""Seeds of all that is random in a training: from the run's seed and the number of a draw or iteration alone."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Make what the block draws on the CPU depend on these numbers alone; afterwards all is as if it had drawn nothing.

    >>> with seeded(1):
    ...     first = random.random()
    >>> with seeded(1):
    ...     random.random() == first
    True
    """
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            seed_cpu(*numbers)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def noise_seeds(seed: int, draws: Sequence[int]) -> list[int]:
    """Derive the seeds of the noise on draws, whichever process has them."""
    return _seeds_of(seed, draws, 1)


def degradation_seeds(seed: int, draws: Sequence[int]) -> list[int]:
    """Derive the seeds of the degradations of draws, likewise."""
    return _seeds_of(seed, draws, 2)


def _seeds_of(seed: int, draws: Sequence[int], purpose: int) -> list[int]:
    return [int(np.random.SeedSequence((seed, draw, purpose)).generate_state(1, np.uint64)[0]) for draw in draws]
