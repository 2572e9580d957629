"""The metric-driven schedule against ReduceLROnPlateau in lock-step, and its state."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from ravine.errors import ArgumentError, ArgumentTypeError
from ravine.schedules import (
    Schedule,
    cosine,
    plateau,
    warmup,
)

EXACT = {"rel": 1e-12, "abs": 1e-12}


def new_optimizer(lr: float) -> torch.optim.SGD:
    return torch.optim.SGD([torch.zeros(1, dtype=torch.float64, requires_grad=True)], lr=lr)


PLATEAUS: list[dict[str, Any]] = [
    {},
    {"patience": 0, "factor": 0.5},
    {"patience": 2, "factor": 0.3, "cooldown": 3},
    {"patience": 1, "factor": 0.5, "min_lr": 0.01, "threshold": 0.0},
    {"patience": 1, "threshold": 0.05, "threshold_mode": "abs"},
    {"patience": 1, "threshold": 0.05, "threshold_mode": "abs", "mode": "max", "factor": 0.9},
    {"patience": 0, "threshold": 0.2, "mode": "max", "cooldown": 1, "factor": 0.7},
    {"patience": 0, "factor": 0.1, "eps": 1e-3},
    {"patience": 0, "factor": 0.0},
]


@pytest.mark.parametrize("options", PLATEAUS, ids=repr)
@pytest.mark.parametrize("kind", ["noise", "falling", "rising", "hard"])
def test_plateau_in_lock_step_with_torch(options: dict[str, Any], kind: str) -> None:
    noise = np.random.default_rng(3).normal(size=150)
    hard = np.array([0.0, -1.0, math.nan, math.inf, -math.inf, -math.inf, 1.0, math.nan, -2.0] * 9)
    values = {
        "noise": noise,
        "falling": np.exp(-0.05 * np.arange(150)) + 0.02 * noise,
        "rising": 0.01 * np.arange(150) + 0.02 * noise,
        "hard": hard,
    }[kind]
    optimizer = new_optimizer(0.3)
    reference = lr_scheduler.ReduceLROnPlateau(optimizer, **options)
    schedule = plateau(0.3, **options)
    for t, value in enumerate(values):
        assert schedule(t) == pytest.approx(optimizer.param_groups[0]["lr"], **EXACT)
        reference.step(float(value))
        schedule.observe(value)
        assert schedule.state_dict()["bad"] == reference.num_bad_epochs
        assert schedule.state_dict()["cooling"] == reference.cooldown_counter
        assert schedule.state_dict()["best"] == reference.best
    assert schedule(0) == pytest.approx(optimizer.param_groups[0]["lr"], **EXACT)
    assert kind != "noise" or schedule(0) < 0.3  # the test would be empty without a reduction


# The state of plateau


def test_plateau_resumes_in_the_middle() -> None:
    values = np.random.default_rng(0).normal(size=60)
    whole = plateau(0.1, factor=0.5, patience=2, cooldown=1)
    first, second = copy.deepcopy(whole), copy.deepcopy(whole)
    for value in values[:29]:
        first.observe(value)
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    assert second(0) == first(0)
    for value in values[29:]:
        second.observe(value)
    for value in values:
        whole.observe(value)
    assert 0 < whole(0) < 0.1
    assert second.state_dict() == whole.state_dict()
    assert second(0) == whole(0)
    assert pickle.loads(pickle.dumps(whole))(0) == whole(0)
    assert copy.deepcopy(whole).state_dict() == whole.state_dict()


def test_plateau_resumed_with_another_lr_keeps_the_reductions() -> None:
    first, second = plateau(0.1, factor=0.5, patience=0), plateau(0.2, factor=0.5, patience=0)
    for value in (1, 1, 1):
        first.observe(value)
    second.load_state_dict(first.state_dict())
    assert (first(0), second(0)) == (0.025, 0.05)


def test_state_is_a_copy() -> None:
    schedule = warmup(2) >> plateau(0.1, patience=0)
    before = schedule.state_dict()
    schedule.observe(1.0)
    schedule.observe(1.0)
    assert schedule(5) == pytest.approx(0.01)
    schedule.load_state_dict(before)
    assert schedule(5) == 0.1


def test_joined_forwards_observations_and_state() -> None:
    schedule = warmup(10) >> plateau(0.1, factor=0.5, patience=0)
    for value in (1.0, 2.0):
        schedule.observe(value)
    assert schedule(100) == 0.05
    assert schedule(9) == 0.1  # the past does not change
    other = warmup(10) >> plateau(0.1, factor=0.5, patience=0)
    other.load_state_dict(schedule.state_dict())
    assert other(100) == 0.05
    assert schedule.state_dict() == {
        "pieces": [{}, {"reductions": 1, "best": 1.0, "bad": 0, "cooling": 0}]
    }


def test_plateau_told_the_step_does_not_hear_the_warmup() -> None:
    schedule = warmup(10) >> plateau(0.1, factor=0.5, patience=0)
    for t in (3, 6, 9):
        schedule.observe(1.0, step=t)
    assert schedule(10) == 0.1
    schedule.observe(1.0, step=10)
    schedule.observe(1.0, step=20)
    assert schedule(21) == 0.05


def test_pure_schedules_have_no_state() -> None:
    for schedule in (cosine(5, 0.1), warmup(3) >> cosine(5, 0.1)):
        schedule.observe(1.0)
        assert schedule.state_dict() == {}
        schedule.load_state_dict({})


@pytest.mark.parametrize(
    ("schedule", "state"),
    [
        (cosine(5, 0.1), plateau(0.1).state_dict()),
        (plateau(0.1), {}),
        (plateau(0.1), {**plateau(0.1).state_dict(), "more": 1}),
        (warmup(3) >> plateau(0.1), plateau(0.1).state_dict()),
        (warmup(3) >> plateau(0.1), {}),
        (warmup(3) >> plateau(0.1), (warmup(3) >> warmup(2) >> plateau(0.1)).state_dict()),
        (warmup(3) >> cosine(5, 0.1), (warmup(3) >> plateau(0.1)).state_dict()),
    ],
)
def test_state_of_another_schedule(schedule: Schedule, state: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="this state belongs to another schedule"):
        schedule.load_state_dict(state)


@pytest.mark.parametrize("change", [{"bad": -1}, {"best": math.nan}, {"reductions": -2}])
def test_impossible_state(change: dict[str, Any]) -> None:
    schedule = plateau(0.1)
    with pytest.raises(ArgumentError, match="in the state of plateau"):
        schedule.load_state_dict({**schedule.state_dict(), **change})


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), torch.tensor(1.0), torch.ones(1)])
def test_observed_values(value: Any) -> None:
    schedule = plateau(0.1)
    schedule.observe(value)
    assert schedule.state_dict()["best"] == 1.0


@pytest.mark.parametrize("value", ["1", None, torch.ones(2), [1.0], 1j])
def test_observed_values_that_are_no_numbers(value: Any) -> None:
    with pytest.raises(ArgumentTypeError, match="the observed value is not a number"):
        plateau(0.1).observe(value)


def test_a_snapshot_of_lambda_lr_does_not_follow_the_plateau() -> None:
    schedule = plateau(0.1, patience=0)
    scheduler = lr_scheduler.LambdaLR(new_optimizer(1.0), schedule)
    snapshot = scheduler.state_dict()
    for _ in range(3):
        schedule.observe(1.0)
    assert schedule(0) < 0.1
    scheduler.load_state_dict(snapshot)
    assert schedule(0) == 0.1
