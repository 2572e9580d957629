"""Plain lines: one for each epoch while they are few, few over many hours, none where nobody reads."""

from __future__ import annotations

import io
import math
import re
from typing import Any

import pytest

from ravine.cli.outlet import Outlet
from ravine.cli.plain import FREE, PlainDisplay
from ravine.training.events import EpochDone, RunEnded, RunStarted, StepDone


class Shown:
    """A display whose clock is set by hand, and its lines."""

    def __init__(self, epochs: int, steps: int = 0) -> None:
        self.now = 0.0
        self.stream = io.StringIO()
        self.outlet = Outlet(self.stream)  # type: ignore[arg-type]
        self.display = PlainDisplay(self.outlet, clock=lambda: self.now)
        self.display(RunStarted("t", "adam()", "mse()", 9, epochs, steps, 64, "fake"))

    def epoch(self, number: int, loss: float = 0.5) -> None:
        self.display(EpochDone({"epoch": number, "step": number, "train/loss": loss}))

    def step(self, step: int, **changes: Any) -> None:
        self.display(StepDone(step, 1, 0.5, 1e-3, 1.25, 0.6, 1234.5, **changes))

    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()[2:]


@pytest.mark.parametrize("epochs", [1, 20, FREE])
def test_few_epochs_have_a_line_each(epochs: int) -> None:
    shown = Shown(epochs)
    for epoch in range(1, epochs + 1):
        shown.epoch(epoch)
    shown.display(RunEnded(None))
    assert len(shown.lines()) == epochs
    assert shown.lines()[-1] == f"epoch {epochs}/{epochs}  train loss 0.5"


def test_many_quick_epochs_have_a_line_now_and_then_and_the_last_one() -> None:
    shown = Shown(100_000)
    for epoch in range(1, 100_001):
        shown.now += 0.001
        shown.epoch(epoch)
    shown.display(RunEnded(None))
    lines = shown.lines()
    assert lines[FREE] == "  not every epoch has a line from here on; history.jsonl has them all"
    # 60 s with a line each, 40 with a line every other.
    assert len(lines) == pytest.approx(FREE + 60 + 20 + 2, abs=3)
    assert lines[-1] == "epoch 100000/100000  train loss 0.5"


@pytest.mark.parametrize(("hours", "most"), [(1, 600), (24, 2300), (24 * 7, 11_000)])
def test_lines_become_rarer_over_hours(hours: int, most: int) -> None:
    shown = Shown(10**9)
    while shown.now < 3600 * hours:
        shown.now += 1
        shown.epoch(int(shown.now))
    assert most / 2 < len(shown.lines()) < most


def test_a_long_epoch_is_told_of() -> None:
    shown = Shown(2, steps=40_000)
    for step in range(1, 700):
        shown.now += 0.1
        shown.step(step, seconds_left=90_000.0)
    lines = shown.lines()
    assert len(lines) == 6  # after ten seconds of silence each
    assert re.fullmatch(
        r"  epoch 1, step \d+/40,000  loss 0.5  smoothed 0.6  lr 0.001  gradient norm 1.25"
        r"  1,23[45] samples/s  1d 1:00:00 left",
        lines[0],
    )


def test_what_is_not_known_is_not_said() -> None:
    shown = Shown(2)
    shown.now = 11
    shown.display(StepDone(3, 1, math.nan, 1e-3, None))
    assert shown.lines() == ["  epoch 1, step 3  loss NaN  lr 0.001"]


def test_quick_epochs_say_how_long_the_run_will_take() -> None:
    shown = Shown(2)
    shown.step(1, seconds_left=75.0)
    shown.epoch(1)
    shown.step(2, seconds_left=3.0)
    shown.epoch(2)
    assert shown.lines()[0] == "epoch 1/2  train loss 0.5  1:15 left"
    assert shown.lines()[1] == "epoch 2/2  train loss 0.5"


def test_a_reader_that_does_not_read_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Shown(9)
    shown.epoch(1)
    monkeypatch.setattr(Outlet, "ready", lambda _: False)
    for epoch in (2, 3, 4):
        shown.epoch(epoch)
    monkeypatch.setattr(Outlet, "ready", lambda _: True)
    shown.epoch(5)
    assert [line.strip() for line in shown.lines()] == [
        "epoch 1/9  train loss 0.5",
        "3 lines left out while nobody read",
        "epoch 5/9  train loss 0.5",
    ]


def test_the_last_epoch_is_told_in_the_end_to_a_reader_that_slept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = Shown(3)
    monkeypatch.setattr(Outlet, "ready", lambda _: False)
    for epoch in (1, 2, 3):
        shown.epoch(epoch)
    shown.display(RunEnded(None))
    assert [line.strip() for line in shown.lines()] == [
        "3 lines left out while nobody read",
        "epoch 3/3  train loss 0.5",
    ]


def test_steps_that_are_not_known_are_not_counted() -> None:
    shown = Shown(5)
    assert "5 epochs, steps not known before, batches of 64" in shown.stream.getvalue()
