"""Bounds of hyperparameters that more than one loss has, and the check against them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ravine.errors import ArgumentError
from ravine.losses.arguments import readable
from ravine.losses.loss import Bound


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


def check_bounds(name: str, values: Mapping[str, Any], bounds: Mapping[str, Bound]) -> None:
    """Raise `ArgumentError` for the first hyperparameter that is out of its bounds."""
    for option, (test, text) in bounds.items():
        if not test(values[option]):
            raise ArgumentError(
                f"{name}: {option} has a value that cannot be used",
                got=repr(values[option]),
                expected=text,
            )
