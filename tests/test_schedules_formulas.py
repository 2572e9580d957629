"""Schedules against torch.optim.lr_scheduler in lock-step, and against their own formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from names import named
from torch.optim import lr_scheduler

from ravine.schedules import (
    Schedule,
    constant,
    cosine,
    exponential,
    linear,
    polynomial,
    step,
    warmup,
)

EXACT = {"rel": 1e-12, "abs": 1e-12}


def new_optimizer(lr: float) -> torch.optim.SGD:
    return torch.optim.SGD([torch.zeros(1, dtype=torch.float64, requires_grad=True)], lr=lr)


def torch_rates(make: Callable[[Any], Any], lr: float, steps: int) -> list[float]:
    """The learning rates that a torch scheduler gives to the updates 0, 1, ..."""
    optimizer = new_optimizer(lr)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return rates


# The same numbers as torch


@pytest.mark.parametrize(
    ("schedule", "make", "lr", "steps"),
    [
        (
            exponential(0.3, rate=0.01),
            lambda o: lr_scheduler.ExponentialLR(o, gamma=math.exp(-0.01)),
            0.3,
            1500,
        ),
        (exponential(0.3, rate=0.0), lambda o: lr_scheduler.ExponentialLR(o, gamma=1.0), 0.3, 50),
        (
            exponential(0.01, rate=-0.02, steps=200),
            lambda o: lr_scheduler.ExponentialLR(o, gamma=math.exp(0.02)),
            0.01,
            201,
        ),
        (step(0.3, every=30), lambda o: lr_scheduler.StepLR(o, 30), 0.3, 200),
        (step(0.3, every=7, factor=0.7), lambda o: lr_scheduler.StepLR(o, 7, 0.7), 0.3, 300),
        (step(0.3, every=1, factor=0.0), lambda o: lr_scheduler.StepLR(o, 1, 0.0), 0.3, 5),
        (
            polynomial(400, peak=0.3, power=0.9),
            lambda o: lr_scheduler.PolynomialLR(o, 400, power=0.9),
            0.3,
            450,
        ),
        (
            polynomial(400, peak=0.3, power=3),
            lambda o: lr_scheduler.PolynomialLR(o, 400, power=3),
            0.3,
            450,
        ),
        (
            cosine(1000, peak=0.3),
            lambda o: lr_scheduler.CosineAnnealingLR(o, 1000),
            0.3,
            1001,
        ),
        (
            cosine(777, peak=0.3, end=0.01),
            lambda o: lr_scheduler.CosineAnnealingLR(o, 777, eta_min=0.01),
            0.3,
            778,
        ),
        (cosine(1, peak=0.3), lambda o: lr_scheduler.CosineAnnealingLR(o, 1), 0.3, 2),
        (
            linear(500, start=0.3 * 0.25, end=0.3 * 0.9),
            lambda o: lr_scheduler.LinearLR(o, 0.25, 0.9, total_iters=500),
            0.3,
            600,
        ),
        (
            linear(500, start=0.3, end=0.0),
            lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=500),
            0.3,
            600,
        ),
    ],
    ids=named,
)
def test_lock_step_with_torch(
    schedule: Schedule, make: Callable[[Any], Any], lr: float, steps: int
) -> None:
    rates = [schedule(t) for t in range(steps)]
    assert rates == pytest.approx(torch_rates(make, lr, steps), **EXACT)


def test_joined_in_lock_step_with_torch() -> None:
    schedule = linear(50, start=0.03, end=0.3) >> cosine(100, peak=0.3) >> constant(0.3)

    def make(optimizer: Any) -> Any:
        rise = lr_scheduler.LinearLR(optimizer, 0.1, 1.0, total_iters=50)
        fall = lr_scheduler.CosineAnnealingLR(optimizer, 100)
        last = lr_scheduler.ConstantLR(optimizer, 1.0)
        return lr_scheduler.SequentialLR(optimizer, [rise, fall, last], milestones=[50, 150])

    assert [schedule(t) for t in range(200)] == pytest.approx(torch_rates(make, 0.3, 200), **EXACT)


# The formulas, written out

STEPS = st.integers(1, 5000)
RATES = st.floats(0, 10)


@given(RATES, st.floats(0, 2), st.integers(0, 10_000))
def test_exponential_formula(lr: float, rate: float, t: int) -> None:
    assert exponential(lr, rate)(t) == pytest.approx(lr * math.e ** (-rate * t), rel=1e-9, abs=0)


@given(RATES, RATES, STEPS, st.integers(0, 10_000))
def test_linear_and_cosine_formulas(start: float, end: float, steps: int, t: int) -> None:
    part = min(t / steps, 1.0)
    wave = (math.cos(part * math.pi) + 1) / 2
    assert linear(steps, start, end)(t) == pytest.approx(start * (1 - part) + end * part, **EXACT)
    assert cosine(steps, start, end)(t) == pytest.approx(start * wave + end * (1 - wave), **EXACT)


@given(RATES, RATES, STEPS, st.floats(0.1, 5), st.integers(0, 10_000))
def test_polynomial_formula(peak: float, end: float, steps: int, power: float, t: int) -> None:
    left = (steps - min(t, steps)) / steps
    value = (peak - end) * left**power + end
    assert polynomial(steps, peak, end, power)(t) == pytest.approx(value, rel=1e-11, abs=1e-12)


@given(RATES, st.integers(1, 300), st.floats(0, 1), st.integers(0, 3000))
def test_step_formula(lr: float, every: int, factor: float, t: int) -> None:
    value = lr
    for _ in range(t // every):
        value *= factor
    assert step(lr, every, factor)(t) == pytest.approx(value, rel=1e-11, abs=1e-300)


@given(st.integers(1, 300), st.floats(0, 1), RATES)
def test_warmup_formula(steps: int, start: float, peak: float) -> None:
    schedule = warmup(steps, start) >> cosine(10, peak)
    for k in range(steps):
        value = peak * (start + (1 - start) * (k + 1) / steps)
        assert schedule(k) == pytest.approx(value, **EXACT)
    assert schedule(steps - 1) == pytest.approx(peak, rel=1e-15)
    assert schedule(steps) == peak


@pytest.mark.parametrize("end", [0.0, 1e-5, 0.3, 0.7])
def test_ends_are_reached_exactly(end: float) -> None:
    # 0.3 + (0.1 - 0.3) is not 0.1 in floating point, so `linear` may miss its end by a rounding.
    assert linear(7, 0.3, end)(7) == pytest.approx(end, rel=1e-15, abs=1e-16)
    assert cosine(7, 0.3, end)(7) == end
    assert polynomial(7, 0.3, end)(7) == end
