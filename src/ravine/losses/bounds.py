"""Hyperparameters of a loss checked: their names, and the bounds that more than one loss has."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ravine.errors import ArgumentError, unknown_option
from ravine.losses.arguments import readable

Bound = tuple[Callable[[Any], bool], str]
"""A test of a value, and the bound in words."""

OPTIONS = ("weight", "reduction", "normalizer", "check")
"""What every loss takes beside its hyperparameters."""

TAKEN = frozenset(OPTIONS) | {"self", "input", "target", "_scale"}
"""Names that a loss of an equation gives another meaning: not for its hyperparameters and tensors."""


def number(test: Callable[[float], bool], text: str) -> Bound:
    """Return the bound of the numbers that pass a test; True and False are no numbers."""
    return (lambda x: isinstance(x, (int, float)) and not isinstance(x, bool) and test(x)), text


POSITIVE = number(lambda x: 0 < x < math.inf, "a finite number > 0")
FRACTION = number(lambda x: 0 <= x <= 1, "a number in [0, 1]")
NOT_NEGATIVE = number(lambda x: 0 <= x < math.inf, "a finite number >= 0")


def _learned(x: Any) -> bool:
    if not (isinstance(x, Tensor) and x.is_floating_point() and x.numel() == 1):
        return POSITIVE[0](x)
    return not readable(x) or POSITIVE[0](x.item())


POSITIVE_OR_TENSOR: Bound = (_learned, "a finite number > 0, or a float tensor of one such number")
INTEGER: Bound = (
    lambda x: isinstance(x, int) and not isinstance(x, bool) and -(2**63) <= x < 2**63,
    "an integer of 64 bits",
)
INTEGER_OR_NONE: Bound = (lambda x: x is None or INTEGER[0](x), "an integer of 64 bits or None")
SWITCH: Bound = (lambda x: isinstance(x, bool), "True or False")


def at_least(least: float) -> Bound:
    """Return the bound of finite numbers from ``least`` on."""
    return number(lambda x: least <= x < math.inf, f"a finite number >= {least:g}")


def settled(
    name: str,
    given: Mapping[str, Any],
    defaults: Mapping[str, Any],
    bounds: Mapping[str, Bound],
    tensors: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the hyperparameters given and, for the others, their defaults; checked.

    Raises:
        UnknownOptionError: one is not known; ``tensors`` are named among the known ones.
        ArgumentError: one is out of its bounds.
    """
    for option in given:
        if option not in defaults:
            raise unknown_option(name, option, [*tensors, *defaults, *OPTIONS])
    values = {**defaults, **given}
    check_bounds(name, values, bounds)
    return values


def check_bounds(name: str, values: Mapping[str, Any], bounds: Mapping[str, Bound]) -> None:
    """Raise `ArgumentError` for the first hyperparameter that is out of its bounds."""
    for option, (test, text) in bounds.items():
        if not test(values[option]):
            raise ArgumentError(
                f"{name}: {option} has a value that cannot be used",
                got=repr(values[option]),
                expected=text,
            )
