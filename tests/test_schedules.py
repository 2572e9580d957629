"""What every schedule can do: be called, written, copied, joined, and drive a torch optimizer."""

from __future__ import annotations

import copy
import io
import math
import pickle
from dataclasses import FrozenInstanceError, dataclass, fields
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from ravine.errors import ArgumentError, ArgumentTypeError
from ravine.expression import parse
from ravine.schedules import (
    SCHEDULES,
    Schedule,
    constant,
    cosine,
    exponential,
    linear,
    plateau,
    polynomial,
    step,
    warmup,
)

EXACT = {"rel": 1e-12, "abs": 1e-12}


def new_optimizer(lr: float) -> torch.optim.SGD:
    return torch.optim.SGD([torch.zeros(1, dtype=torch.float64, requires_grad=True)], lr=lr)


ALL: list[Schedule] = [
    constant(0.1),
    constant(0.1, steps=3),
    exponential(0.1, 0.2),
    exponential(0.1, 0.2, steps=5),
    exponential(1e-6, -0.5, steps=20),
    step(0.1, 4),
    step(0.1, 4, 0.5, steps=9),
    linear(5, 0.1, 0.0),
    polynomial(5, 0.1),
    polynomial(5, 0.1, 0.01, 2),
    cosine(5, 0.1),
    cosine(5, 0.1, end=0.01),
    plateau(0.1),
    plateau(0.1, patience=3, mode="max", threshold_mode="abs"),
    warmup(3) >> cosine(5, 0.1),
    warmup(3, start=0.1) >> plateau(0.1),
    cosine(5, 0.1) >> warmup(3) >> constant(0.1, 4) >> exponential(0.1, 0.3),
    warmup(2) >> warmup(3, start=0.5) >> step(0.1, 5, steps=7),
]
SORTS = {type(schedule) for schedule in ALL}


def test_all_sorts_are_here() -> None:
    assert {*SCHEDULES.values()} - {warmup} <= SORTS
    assert list(SCHEDULES) == [sort.__name__ for sort in SCHEDULES.values()]


@pytest.mark.parametrize("schedule", [*ALL, warmup(3), warmup(3, 0.5)], ids=repr)
def test_written_copied_pickled_compared(schedule: Schedule) -> None:
    for same in (
        parse(repr(schedule), SCHEDULES),
        eval(repr(schedule), dict(SCHEDULES)),
        copy.copy(schedule),
        copy.deepcopy(schedule),
        pickle.loads(pickle.dumps(schedule)),
    ):
        assert same == schedule
        assert hash(same) == hash(schedule)
        assert repr(same) == repr(schedule)
        assert same.length == schedule.length
        if schedule.complete:
            assert [same(t) for t in range(40)] == [schedule(t) for t in range(40)]
    assert len({*ALL, *copy.deepcopy(ALL)}) == len(ALL)


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_after_its_end_it_holds(schedule: Schedule) -> None:
    length = schedule.length
    if length is not None:
        assert {schedule(t) for t in (length, length + 1, 10**9, 2**53, 10**400)} == {
            schedule(length)
        }
    for t in (10**9, 2**53, 10**400):
        assert math.isfinite(schedule(t))
        assert schedule(t) >= 0


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_steps_of_every_integer_type(schedule: Schedule) -> None:
    for t in (0, 3, 4, 11):
        for same in (np.int64(t), np.uint8(t), np.array(t), torch.tensor(t), torch.tensor([t])):
            value = schedule(same)
            assert value == schedule(t)
            assert type(value) is float


@pytest.mark.parametrize(
    "bad", [True, np.True_, torch.tensor(True), 3.0, "3", None, torch.tensor(3.0), [3]], ids=repr
)
def test_steps_that_are_no_steps(bad: Any) -> None:
    for schedule in ALL:
        with pytest.raises(ArgumentTypeError, match="step is not a whole number"):
            schedule(bad)


def test_negative_step() -> None:
    with pytest.raises(ArgumentError) as caught:
        cosine(10, peak=0.1)(-1)
    assert str(caught.value) == (
        "step is negative\n  got:      -1\n  expected: a whole number from 0 (first update)"
    )


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_immutable(schedule: Schedule) -> None:
    name = fields(schedule)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(schedule, name, 1)


def test_arguments_are_stored_as_the_type_they_mean() -> None:
    schedule = cosine(np.int64(5), peak=1, end=np.float32(0.5))  # type: ignore[arg-type]
    assert repr(schedule) == "cosine(5, peak=1.0, end=0.5)"
    assert constant(1) == constant(1.0)
    assert constant(1) != exponential(1, 0)
    assert cosine(5, 1.0) != linear(5, 1.0, 0.0)


# Joining


def test_each_piece_starts_from_its_own_zero() -> None:
    a, b, c = linear(3, 1.0, 4.0), step(0.5, 2, steps=4), exponential(0.2, 0.3)
    joined = a >> b >> c
    expected = [a(t) for t in range(3)] + [b(t) for t in range(4)] + [c(t) for t in range(5)]
    assert [joined(t) for t in range(12)] == expected
    assert joined.length is None
    assert (a >> b).length == 7
    assert a >> (b >> c) == joined
    assert repr(joined) == (
        "linear(3, start=1.0, end=4.0) >> step(0.5, every=2, steps=4) >> exponential(0.2, rate=0.3)"
    )


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=6))
def test_joining_is_associative(plan: list[tuple[int, bool]]) -> None:
    pieces = [warmup(n, 0.1) if warm else cosine(n, n / 10) for n, warm in plan]
    pieces.append(constant(0.3))
    left: Schedule = pieces[0]
    for piece in pieces[1:]:
        left = left >> piece
    right = pieces[-1]
    for piece in reversed(pieces[:-1]):
        right = piece >> right
    assert left == right
    assert [left(t) for t in range(60)] == [right(t) for t in range(60)]


def test_a_number_is_a_constant_on_the_right() -> None:
    assert warmup(4) >> 0.1 == warmup(4) >> constant(0.1)
    assert warmup(4) >> 1 == warmup(4) >> constant(1.0)


def test_warmup_rises_to_the_first_value_of_what_follows() -> None:
    schedule = warmup(2) >> warmup(2, start=0.5) >> linear(4, 0.8, 0.0)
    assert [schedule(t) for t in range(6)] == pytest.approx([0.3, 0.6, 0.6, 0.8, 0.8, 0.6])


# Driving torch's optimizers


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_drives_a_torch_optimizer(schedule: Schedule) -> None:
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scheduler = lr_scheduler.LambdaLR(optimizer, schedule)
    total = 0.0
    for t in range(15):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        total += schedule(t)
        assert weight.item() == pytest.approx(-total, **EXACT)
        scheduler.step()


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_checkpoint_of_lambda_lr_is_safe_to_load(schedule: Schedule) -> None:
    schedule = copy.deepcopy(schedule)
    optimizer = new_optimizer(1.0)
    scheduler = lr_scheduler.LambdaLR(optimizer, schedule)
    for value in range(15):
        schedule.observe(value)
        optimizer.step()
        scheduler.step()
    file = io.BytesIO()
    torch.save(scheduler.state_dict(), file)
    file.seek(0)
    fresh = parse(repr(schedule), SCHEDULES)
    resumed = lr_scheduler.LambdaLR(new_optimizer(1.0), fresh)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert fresh == schedule
    assert fresh.state_dict() == schedule.state_dict()
    assert resumed.last_epoch == 15
    assert [fresh(t) for t in range(30)] == [schedule(t) for t in range(30)]


# A schedule of one's own


@dataclass(frozen=True, repr=False)
class InverseSqrt(Schedule):
    lr: float
    steps: int | None = None

    def equation(self, t: int) -> float:
        return self.lr / math.sqrt(1 + t)


def test_a_schedule_of_ones_own() -> None:
    schedule = warmup(2) >> InverseSqrt(0.1, steps=3) >> 0.01
    assert repr(schedule) == "warmup(2) >> InverseSqrt(0.1, steps=3) >> constant(0.01)"
    expected = [0.05, 0.1, 0.1, 0.1 / math.sqrt(2), 0.1 / math.sqrt(3), 0.01, 0.01]
    assert [schedule(t) for t in range(7)] == pytest.approx(expected, **EXACT)
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert InverseSqrt(0.1, steps=3)(50) == 0.05
    with pytest.raises(ArgumentError, match=r"InverseSqrt\(0.1\) never ends"):
        InverseSqrt(0.1) >> 0.01


def test_signatures_are_those_of_the_documentation() -> None:
    import inspect

    parameters = {
        name: str(
            inspect.Signature(
                [p.replace(annotation=p.empty) for p in inspect.signature(s).parameters.values()]
            )
        )
        for name, s in SCHEDULES.items()
    }
    assert parameters == {
        "constant": "(lr, steps=None)",
        "exponential": "(lr, rate, steps=None)",
        "step": "(lr, every, factor=0.1, steps=None)",
        "linear": "(steps, start, end)",
        "polynomial": "(steps, peak, end=0.0, power=1.0)",
        "cosine": "(steps, peak, end=0.0)",
        "warmup": "(steps, start=0.0)",
        "plateau": "(lr, factor=0.1, patience=10, threshold=0.0001, threshold_mode='rel', "
        "cooldown=0, min_lr=0.0, mode='min', eps=1e-08)",
    }
