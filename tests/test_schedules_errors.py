"""What schedules refuse, message by message."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from names import named

from ravine.errors import ArgumentError, ArgumentTypeError
from ravine.schedules import (
    SCHEDULES,
    Schedule,
    as_schedule,
    constant,
    cosine,
    exponential,
    linear,
    plateau,
    polynomial,
    step,
    warmup,
)


def test_nothing_can_follow_what_never_ends() -> None:
    with pytest.raises(ArgumentError) as caught:
        exponential(0.1, rate=0.5) >> cosine(5, peak=0.1)
    assert str(caught.value) == (
        "exponential(0.1, rate=0.5) never ends, so nothing can follow it\n"
        "  got:      exponential(0.1, rate=0.5) >> cosine(5, peak=0.1)\n"
        "  expected: a schedule with a length on the left of >>\n"
        "  do:       give it a length: exponential(0.1, rate=0.5, steps=...)"
    )
    with pytest.raises(ArgumentError, match=r"do: +put it last"):
        plateau(0.1) >> warmup(3)
    with pytest.raises(
        ArgumentError, match=r"do: +give it a length: constant\(0.1, steps=\.\.\.\)"
    ):
        0.1 >> cosine(5, peak=0.1)
    with pytest.raises(ArgumentError, match=r"constant\(0.1\) never ends"):
        (warmup(3) >> 0.1) >> cosine(5, peak=0.1)


@pytest.mark.parametrize("use", [as_schedule, lambda schedule: schedule(0)], ids=["give", "call"])
def test_warmup_with_nothing_after_it(use: Callable[[Schedule], Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        use(warmup(100))
    assert str(caught.value) == (
        "a warmup needs a learning rate to rise to, and nothing follows it\n"
        "  got:      warmup(100)\n"
        "  do:       put what it rises to on its right: warmup(100) >> cosine(900, peak=1e-3)"
    )
    with pytest.raises(ArgumentError) as caught:
        use(cosine(9, peak=0.1) >> warmup(5))
    assert str(caught.value) == (
        "a warmup needs a learning rate to rise to, and nothing follows it\n"
        "  got:      cosine(9, peak=0.1) >> warmup(5)\n"
        "  do:       put the warmup before what it rises to: warmup(5) >> cosine(9, peak=0.1)"
    )
    with pytest.raises(ArgumentError, match=r"on its right: warmup\(1\) >> warmup\(2\) >> cosine"):
        use(warmup(1) >> warmup(2))


@pytest.mark.parametrize("other", ["0.1", None, [0.1], True, cosine, lambda step: 0.1], ids=named)
def test_joining_with_something_else(other: Any) -> None:
    for join in (lambda: warmup(3) >> other, lambda: other >> warmup(3)):
        with pytest.raises(ArgumentTypeError, match="this is not a learning rate"):
            join()


def test_as_schedule() -> None:
    schedule = cosine(5, peak=0.1)
    assert as_schedule(schedule) is schedule
    assert as_schedule(0.1) == constant(0.1)
    assert as_schedule(1) == constant(1.0)
    for bad in (-0.1, math.nan, math.inf, 10**400):
        with pytest.raises(ArgumentError, match="lr of constant is out of range"):
            as_schedule(bad)
    with pytest.raises(ArgumentTypeError) as caught:
        as_schedule(abs)  # type: ignore[arg-type]
    assert str(caught.value) == (
        "this is not a learning rate\n"
        "  got:      <built-in function abs> of type builtin_function_or_method\n"
        "  expected: a number, or a schedule such as cosine(900, peak=1e-3)\n"
        "  do:       subclass ravine.schedules.Schedule, as its documentation shows"
    )


# Arguments out of bounds


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: constant(-1), "lr of constant is out of range"),
        (lambda: constant(math.nan), "lr of constant is out of range"),
        (lambda: constant(0.1, steps=0), "steps of constant is out of range"),
        (lambda: constant(0.1, steps=2**53 + 1), "steps of constant is out of range"),
        (lambda: exponential(0.1, math.inf), "rate of exponential is out of range"),
        (lambda: exponential(0.1, -0.1), "exponential grows beyond every bound"),
        (lambda: exponential(0.1, -1, 10_000), "exponential grows beyond every bound"),
        (lambda: exponential(1e300, -1, 600), "exponential grows beyond every bound"),
        (lambda: step(0.1, 0), "every of step is out of range"),
        (lambda: step(0.1, 3, 1.5), "factor of step is out of range"),
        (lambda: step(0.1, 3, -0.5), "factor of step is out of range"),
        (lambda: linear(-3, 0, 1), "steps of linear is out of range"),
        (lambda: linear(3, -1, 1), "start of linear is out of range"),
        (lambda: linear(3, 1, -1), "end of linear is out of range"),
        (lambda: cosine(3, -1), "peak of cosine is out of range"),
        (lambda: cosine(3, 1, -1), "end of cosine is out of range"),
        (lambda: polynomial(3, 1, power=0), "power of polynomial is out of range"),
        (lambda: warmup(0), "steps of warmup is out of range"),
        (lambda: warmup(3, 1.5), "start of warmup is out of range"),
        (lambda: plateau(-1), "lr of plateau is out of range"),
        (lambda: plateau(0.1, factor=1), "factor of plateau is out of range"),
        (lambda: plateau(0.1, patience=-1), "patience of plateau is out of range"),
        (lambda: plateau(0.1, threshold=1), "threshold of plateau is out of range"),
        (lambda: plateau(0.1, threshold=-1), "threshold of plateau is out of range"),
        (lambda: plateau(0.1, min_lr=0.2), "min_lr of plateau is out of range"),
        (lambda: plateau(0.1, mode="mim"), "mode of plateau is not known"),
        (lambda: plateau(0.1, threshold_mode=1), "threshold_mode of plateau is not known"),  # type: ignore[arg-type]
    ],
)
def test_out_of_bounds(make: Callable[[], Any], what: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        make()
    assert caught.value.what == what
    assert "got:" in str(caught.value)
    assert "expected:" in str(caught.value)


@pytest.mark.parametrize("sort", SCHEDULES.values())
@pytest.mark.parametrize("bad", [True, "1", [1], 1j, np.bool_(True)], ids=repr)
def test_wrong_types(sort: type[Schedule], bad: Any) -> None:
    good: dict[str, Any] = {"lr": 1, "rate": 1, "every": 1, "steps": 1, "peak": 1}
    good |= {"start": 1, "end": 1}
    for field in fields(sort):
        if field.init and "mode" not in field.name:
            needed = {f.name: good[f.name] for f in fields(sort) if f.init and f.name in good}
            with pytest.raises(ArgumentTypeError, match=f"^{field.name} of {sort.__name__} is not"):
                sort(**{**needed, field.name: bad})


def test_a_whole_float_is_no_number_of_steps() -> None:
    with pytest.raises(ArgumentTypeError) as caught:
        cosine(1e3, peak=1)  # type: ignore[arg-type]
    assert str(caught.value) == (
        "steps of cosine is not a whole number\n"
        "  got:      1000.0 of type float\n"
        "  expected: an int\n"
        "  do:       write 1000"
    )
    with pytest.raises(ArgumentTypeError):
        cosine(math.inf, peak=1)  # type: ignore[arg-type]


def test_bounds_are_stated() -> None:
    with pytest.raises(ArgumentError) as caught:
        plateau(0.1, factor=1.5)
    assert str(caught.value) == (
        "factor of plateau is out of range\n"
        "  got:      1.5\n"
        "  expected: a finite number, at least 0, below 1"
    )
