"""Temperatures that are numbers, and the one that is not."""

from __future__ import annotations

from typing import Any

import pytest

from srflow_plugin.errors import UserError
from srflow_plugin.sampling.temperature import check, check_has_prior, is_learned, is_number, is_random, label
from tests.helpers import small_network

# Temperature, learned, a number, random, its label.
KINDS: list[tuple[Any, bool, bool, bool, str]] = [
    (0, False, True, False, "0"),
    (0.0, False, True, False, "0"),
    (0.8, False, True, True, "0.8"),
    (1, False, True, True, "1"),
    ("learned", True, False, False, "learned"),
]


@pytest.mark.parametrize(("temperature", "learned", "number", "random", "name"), KINDS)
def test_kinds_of_temperatures(temperature: Any, learned: bool, number: bool, random: bool, name: str) -> None:
    assert is_learned(temperature) == learned
    assert is_number(temperature) == number
    assert is_random(temperature) == random
    assert label(temperature) == name
    check(temperature, small_network(prior_channels=2))


def test_bicubic_upscaling_has_none() -> None:
    assert not is_learned(None) and not is_number(None) and not is_random(None)


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), "learnt", ""])
def test_what_is_no_temperature_is_said(wrong: Any) -> None:
    with pytest.raises(UserError, match=f'temperature must be 0 or more and finite, or "learned", not {wrong}'):
        check(wrong, small_network())


def test_a_network_without_a_prior_says_how_to_get_one() -> None:
    network = small_network(prior_channels=2)
    assert check_has_prior(network) is network
    with pytest.raises(UserError, match=r"^net\.pth has no learned prior.* options/train_SRFlow_x4_prior\.yml"):
        check_has_prior(small_network(), "net.pth")
