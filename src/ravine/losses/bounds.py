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


def _number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x)


def _learned(x: Any) -> bool:
    if not (isinstance(x, Tensor) and x.is_floating_point() and x.numel() == 1):
        return _number(x) and x > 0
    return not readable(x) or (_number(x.item()) and x.item() > 0)


NOT_NEGATIVE: Bound = (lambda x: _number(x) and x >= 0, "a finite number >= 0")
POSITIVE_OR_TENSOR: Bound = (_learned, "a finite number > 0, or a float tensor of one such number")
INTEGER: Bound = (lambda x: isinstance(x, int) and not isinstance(x, bool), "an integer")
INTEGER_OR_NONE: Bound = (lambda x: x is None or INTEGER[0](x), "an integer or None")
SWITCH: Bound = (lambda x: isinstance(x, bool), "True or False")


def at_least(least: float) -> Bound:
    """Return the bound of finite numbers from ``least`` on."""
    return (lambda x: _number(x) and x >= least), f"a finite number >= {least:g}"


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
