"""Temperatures: numbers, and "learned", for which a learned prior predicts the latents. Needs no torch."""

from __future__ import annotations

from typing import Any, Literal, TypeGuard

from srflow_plugin.errors import UserError

LEARNED: Literal["learned"] = "learned"
Temperature = float | Literal["learned"]


def is_learned(temperature: float | str | None) -> TypeGuard[Literal["learned"]]:
    """Tell the learned prior's latents from drawn ones."""
    return temperature == LEARNED


def is_number(temperature: Temperature | None) -> TypeGuard[float]:
    """Tell temperatures that can be compared; bicubic upscaling has none."""
    return temperature is not None and not is_learned(temperature)


def is_random(temperature: Temperature | None) -> bool:
    """Say if samples differ; at 0 and of a learned prior all are equal."""
    return is_number(temperature) and temperature > 0


def label(temperature: Temperature) -> str:
    """Name a temperature in tables and names of files.

    >>> label(0.8), label(0), label("learned")
    ('0.8', '0', 'learned')
    """
    return LEARNED if is_learned(temperature) else f"{temperature:g}"


def check_has_prior(network: Any, name: str = "this network") -> Any:
    """Refuse a network without a learned prior; return one that has it.

    Raises:
        UserError: it has none, with what would help.
    """
    if getattr(network, "prior", None) is None:
        raise UserError(
            f'{name} has no learned prior, so that its temperature is a number, not "learned"; train one with '
            "options/train_SRFlow_x4_prior.yml (docs/explanation/learned_prior.md)"
        )
    return network


def check(temperature: Temperature, network: Any, name: str = "this network") -> None:
    """Refuse a temperature that is none of a network.

    Raises:
        UserError: what would be right.
    """
    if is_learned(temperature):
        check_has_prior(network, name)
    elif isinstance(temperature, str) or not 0 <= temperature < float("inf"):
        raise UserError(f'temperature must be 0 or more and finite, or "learned", not {temperature}')
