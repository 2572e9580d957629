"""Arguments that several regularisers check in the same way."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor, nn

from ravine.errors import ArgumentError, ArgumentTypeError


def number(what: str, value: object, *, low: float, high: float = math.inf, expected: str) -> float:
    """Return ``value`` as a float if it is a finite number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArgumentTypeError(
            f"{what} is not a number", got=f"{value!r} ({type(value).__name__})", expected=expected
        )
    if not (low <= value <= high and math.isfinite(value)):
        raise ArgumentError(
            f"{what} has a value that cannot be used", got=repr(value), expected=expected
        )
    return float(value)


def probability(what: str, value: object) -> float:
    """Return ``value`` as a float if it is a probability."""
    return number(what, value, low=0.0, high=1.0, expected="a probability in [0, 1]")


def positive(what: str, value: object) -> float:
    """Return ``value`` as a float if it is a finite number above 0."""
    return number(what, value, low=5e-324, expected="a finite number > 0")


def not_negative(what: str, value: object) -> float:
    """Return ``value`` as a float if it is a finite number from 0 on."""
    return number(what, value, low=0.0, expected="a finite number >= 0")


def count(what: str, value: object, *, low: int) -> int:
    """Return ``value`` if it is a whole number from ``low`` on."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(
            f"{what} is not a whole number",
            got=f"{value!r} ({type(value).__name__})",
            expected=f"an int >= {low}",
        )
    if value < low:
        raise ArgumentError(
            f"{what} has a value that cannot be used", got=repr(value), expected=f"an int >= {low}"
        )
    return value


def seed_number(what: str, value: object) -> int:
    """Return ``value`` if it can seed a stream of random numbers."""
    seed = count(what, value, low=0)
    if seed >= 2**63:
        raise ArgumentError(
            f"{what} has a value that cannot be used", got=repr(seed), expected="0 <= seed < 2^63"
        )
    return seed


def tensors(owner: str, parameters: nn.Module | Tensor | Iterable[Tensor]) -> list[Tensor]:
    """Return parameters as a list, or raise where something else was given."""
    if isinstance(parameters, nn.Module):
        listed: list[Tensor] = list(parameters.parameters())
    else:
        listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    for position, tensor in enumerate(listed):
        if not isinstance(tensor, Tensor):
            raise ArgumentTypeError(
                f"{owner}: this is not a parameter",
                where=f"item {position}",
                got=f"{tensor!r} ({type(tensor).__name__})",
                expected="a model, a tensor, or tensors",
                do="give model.parameters(), not model.named_parameters()"
                if isinstance(tensor, tuple)
                else "",
            )
    return listed
