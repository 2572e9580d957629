"""The smoothed loss, the speed, the time left, and how often they are told."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_cases import FORMS, points, task

import ravine
from ravine.training.events import EpochDone, RunStarted, StepDone
from ravine.training.pace import Pace, Sparser
from ravine.training.progress import TIME_CONSTANT, WINDOW, Progress, Smoothed


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


# Smoothed loss


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.floats(0.5, 1000))
def test_the_smoothed_loss_is_the_weighted_mean_of_its_formula(
    losses: list[float], constant: float
) -> None:
    smoothed = Smoothed(constant)
    for loss in losses:
        smoothed.add(loss)
    weights = [math.exp(-(len(losses) - 1 - k) / constant) for k in range(len(losses))]
    expected = math.fsum(w * x for w, x in zip(weights, losses, strict=True)) / math.fsum(weights)
    assert smoothed.value == pytest.approx(expected, rel=1e-9, abs=1e-9 * max(map(abs, losses)))


def test_losses_that_are_not_finite_are_left_out() -> None:
    smoothed = Smoothed()
    assert smoothed.value is None
    smoothed.add(math.nan)
    assert smoothed.value is None
    for loss in (2.0, math.inf, 2.0, -math.inf):
        smoothed.add(loss)
    assert smoothed.value == pytest.approx(2.0)


# Speed and time left


def test_speed_and_time_left_of_a_steady_run() -> None:
    """Four epochs of ten steps of 0.5 s and 8 rows, 3 s of validation after each."""
    clock = Clock()
    progress = Progress(clock)
    step = 0
    for epoch in range(4):
        progress.begin()
        for _ in range(10):
            clock.now += 0.5
            step += 1
            left = progress.report(step, 8 * step, steps=40, ends=4 - epoch)
            if step == 1:
                assert (left, progress.samples_per_second) == (None, None)
                continue
            assert progress.samples_per_second == pytest.approx(16)
            pauses = 3 * (4 - epoch) if epoch else 0  # not known before there was one
            assert left == pytest.approx(0.5 * (40 - step) + pauses)
        progress.end()
        clock.now += 3


@given(st.lists(st.tuples(st.floats(0.01, 4), st.integers(1, 50)), min_size=2, max_size=80))
def test_the_speed_is_that_of_the_recent_window(steps: list[tuple[float, int]]) -> None:
    """Against a search through all reports for the youngest that is at least the window old."""
    clock = Clock()
    progress = Progress(clock)
    progress.begin()
    times, counts = [], []
    rows = 0
    for number, (seconds, size) in enumerate(steps, start=1):
        clock.now += seconds
        rows += size
        progress.report(number, rows, steps=None, ends=0)
        times.append(clock.now)
        counts.append(rows)
        if number == 1:
            continue
        old = [k for k in range(number - 1) if times[-1] - times[k] >= WINDOW]
        start = max(old, default=0)
        expected = (counts[-1] - counts[start]) / (times[-1] - times[start])
        assert progress.samples_per_second == pytest.approx(expected)


def test_an_unknown_number_of_steps_has_no_time_left_but_a_speed() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.begin()
    for step in (1, 2, 3):
        clock.now += 1
        assert progress.report(step, 10 * step, steps=None, ends=1) is None
    assert progress.samples_per_second == pytest.approx(10)


def test_a_clock_that_stands_still_divides_by_nothing() -> None:
    progress = Progress(lambda: 1.0)
    progress.begin()
    assert progress.report(1, 8, steps=9, ends=1) is None
    assert progress.report(2, 16, steps=9, ends=1) is None
    assert progress.samples_per_second is None


# How often


def test_what_is_slow_to_tell_is_told_less_often() -> None:
    clock = Clock()
    pace = Pace(0.1, clock=clock)
    times = []
    for k in range(10_000):
        clock.now = k / 1000
        if pace.due():
            times.append(clock.now)
            clock.now += 0.02  # a hundredth of the time at most: every 2 s
            pace.done()
    assert times == pytest.approx([0, 0.1, 2.12, 4.14, 6.16, 8.18], abs=0.005)


def test_a_terminal_that_hung_for_an_hour_is_tried_again_soon() -> None:
    clock = Clock()
    pace = Pace(0.1, clock=clock)
    assert pace.due()
    clock.now = 1
    assert pace.due()
    clock.now = 3600
    pace.done()
    assert not pace.due()
    clock.now = 3611
    assert pace.due()


def test_rows_become_sparser_and_a_week_stays_small() -> None:
    clock = Clock()
    sparser = Sparser(clock=clock)
    counts = {}
    for hours in (1, 24):
        while clock.now < 3600 * hours:
            counts[hours] = counts.get(hours, 0) + sparser.due()
            clock.now += 0.1
    assert counts[1] == pytest.approx(math.sqrt(7200 * 3600), rel=0.05)
    assert counts[1] + counts[24] == pytest.approx(math.sqrt(7200 * 86_400), rel=0.05)


# In a real run


def watched(monkeypatch: pytest.MonkeyPatch, made: ravine.Task, **options: Any) -> list[Any]:
    """Train with an event after every step."""
    monkeypatch.setattr(Pace, "due", lambda _: True)
    events: list[Any] = []
    ravine.train(made, listeners=[events.append], **options)
    return events


def test_the_events_of_a_run_hold_what_a_plain_loop_would_see(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = watched(monkeypatch, task(), batch_size=16, epochs=3)
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [event.step for event in steps] == list(range(1, 10))
    assert [event.rows for event in steps] == [16, 32, 40, 56, 72, 80, 96, 112, 120]
    for k, event in enumerate(steps):
        weights = [math.exp(-(k - i) / TIME_CONSTANT) for i in range(k + 1)]
        total = sum(w * e.loss for w, e in zip(weights, steps[: k + 1], strict=True))
        assert event.smoothed_loss == pytest.approx(total / sum(weights))
    assert (steps[0].samples_per_second, steps[0].seconds_left) == (None, None)
    assert all(event.samples_per_second > 0 for event in steps[1:])
    assert all(event.seconds_left > 0 for event in steps[1:-1])
    start = events[0]
    assert isinstance(start, RunStarted)
    assert (start.steps, start.step, start.epoch) == (9, 0, 0)
    assert (start.config["batch_size"], start.config["epochs"]) == (16, 3)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_counts_its_rows(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {} if form.startswith("loader") else {"batch_size": 16}
    events = watched(monkeypatch, task(train=FORMS[form](points())), epochs=2, **own)
    last = [event for event in events if isinstance(event, StepDone)][-1]
    assert (last.step, last.rows) == (6, 80)
    known = events[0].steps == 6
    assert known is ("stream" not in form)
    assert (last.seconds_left is not None) is known


def test_at_most_ten_events_a_second() -> None:
    seen: list[Any] = []
    record = ravine.train(task(), batch_size=1, epochs=20, listeners=[seen.append])
    assert sum(isinstance(event, EpochDone) for event in seen) == 20
    steps = sum(isinstance(event, StepDone) for event in seen)
    assert 1 <= steps <= 2 + 10 * record.facts["seconds"]
