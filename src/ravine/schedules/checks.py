"""Bounds of the arguments of schedules. Each check returns the value as the type that is stored."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any

import torch

from ravine.errors import ArgumentError, ArgumentTypeError, nearest

LARGEST_STEP = 2**53
"""Whole numbers up to here are exact as floats; no run gets that far."""


def number(
    value: Any,
    where: str,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: bool = False,
    below: bool = False,
) -> float:
    """Return a finite number between `least` and `most`; `above`/`below` leave the bound out."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ArgumentTypeError(
            f"{where} is not a number",
            got=f"{value!r} of type {type(value).__name__}",
            expected=_bounds("a finite number", least, most, above, below),
        )
    result = _as_float(value)
    low = result > least if above else result >= least
    high = result < most if below else result <= most
    if not (math.isfinite(result) and low and high):
        raise ArgumentError(
            f"{where} is out of range",
            got=repr(result),
            expected=_bounds("a finite number", least, most, above, below),
        )
    return result


def count(value: Any, where: str, *, least: int = 1) -> int:
    """Return a whole number from `least` to 2**53."""
    result = _whole(value, where, do="" if not _is_whole_float(value) else f"write {int(value)}")
    if not least <= result <= LARGEST_STEP:
        raise ArgumentError(
            f"{where} is out of range",
            got=str(result) if abs(result) <= LARGEST_STEP else "a number beyond 2**53",
            expected=f"a whole number from {least} to 2**53",
        )
    return result


def optional_count(value: Any, where: str) -> int | None:
    """Return a whole number of at least 1, or None."""
    return None if value is None else count(value, where)


def step_index(step: Any) -> int:
    """Return a step as a whole number from 0; steps beyond 2**53 count as 2**53."""
    if type(step) is int and 0 <= step <= LARGEST_STEP:  # nearly always, and at every update
        return step
    result = _whole(step, "step", do="count steps in whole numbers from 0")
    if result < 0:
        raise ArgumentError(
            "step is negative", got=str(result), expected="a whole number from 0 (first update)"
        )
    return min(result, LARGEST_STEP)


def metric(value: Any) -> float:
    """Return an observed value as a float: a number, or a tensor or array of one element."""
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentTypeError(
            "the observed value is not a number",
            got=f"{value!r} of type {type(value).__name__}",
            expected="a number, or a tensor of one element",
        ) from error


def choice(value: Any, where: str, allowed: tuple[str, ...]) -> str:
    """Return one of the allowed words."""
    if value not in allowed:
        raise ArgumentError(
            f"{where} is not known",
            got=repr(value),
            expected="one of " + ", ".join(map(repr, allowed)),
            do=nearest(value, allowed) if isinstance(value, str) else "",
        )
    return str(value)


def _whole(value: Any, where: str, *, do: str) -> int:
    try:
        # A bool, and a tensor of one, would pass for the index 0 or 1.
        if isinstance(value, bool) or getattr(value, "dtype", None) is torch.bool:
            raise TypeError
        return operator.index(value)
    except TypeError as error:
        raise ArgumentTypeError(
            f"{where} is not a whole number",
            got=f"{value!r} of type {type(value).__name__}",
            expected="an int",
            do=do,
        ) from error


def _is_whole_float(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


def _as_float(value: Real) -> float:
    try:
        return float(value)
    except OverflowError:  # an int beyond the largest float
        return math.inf


def _bounds(kind: str, least: float, most: float, above: bool, below: bool) -> str:
    bounds = []
    if least > -math.inf:
        bounds.append(f"{'above' if above else 'at least'} {least:g}")
    if most < math.inf:
        bounds.append(f"{'below' if below else 'at most'} {most:g}")
    return ", ".join([kind, *bounds])
