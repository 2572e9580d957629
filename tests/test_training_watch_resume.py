"""What watches a run goes on where the run goes on: rows, event files, the smoothed loss, hooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_training_resume import OPTIMIZER, SETTINGS, broken_off, made

import ravine
from ravine.errors import HookError
from ravine.training.events import RunStarted, StepDone
from ravine.training.hooks import StepState
from ravine.training.lines import read_steps
from ravine.training.pace import Pace, Sparser


@pytest.fixture(autouse=True)
def _every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event and a row for every step, however quick."""
    for paced in (Pace, Sparser):
        monkeypatch.setattr(paced, "due", lambda _: True)


def values(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "samples_per_second"} for row in rows]


@pytest.mark.parametrize("step", [1, 5, 6])
def test_the_rows_of_a_resumed_run_are_those_of_the_unbroken_one(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ravine.train(made(), OPTIMIZER, **SETTINGS, run_dir=tmp_path / "whole")
    run = tmp_path / "run"
    broken_off(monkeypatch, step, made(), run_dir=run, checkpoint_every=2)
    events: list[Any] = []
    ravine.train(made(), resume=run, listeners=[events.append])
    whole = read_steps(tmp_path / "whole")
    assert [row["step"] for row in whole] == list(range(1, 13))
    assert values(read_steps(run)) == values(whole)
    start = events[0]
    assert isinstance(start, RunStarted)
    last = step // 2 * 2
    assert (start.step, start.epoch) == (last, max(last - 1, 0) // 3)
    first = next(event for event in events if isinstance(event, StepDone))
    assert first.step == last + 1


def test_event_files_go_on_without_being_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = tmp_path / "run"
    broken_off(monkeypatch, 5, made(), run_dir=run, checkpoint_every=4, tensorboard=True)
    record = ravine.train(made(), resume=run)
    files = accumulator.EventAccumulator(str(run / "tensorboard")).Reload()
    assert [event.step for event in files.Scalars("train/loss")] == list(range(1, 13))
    losses = [event.value for event in files.Scalars("valid/loss")]
    assert losses == pytest.approx(record.history.column("valid/loss"))


def test_hooks_see_every_step_once_over_both_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    def on_step(state: StepState) -> None:
        steps.append(state.step)

    run = tmp_path / "run"
    broken_off(monkeypatch, 5, made(), run_dir=run, checkpoint_every=1, on_step=on_step)
    ravine.train(made(), resume=run, on_step=on_step)
    assert steps == list(range(1, 13))


def test_what_a_hook_logged_before_the_break_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_epoch(row: Any, state: Any) -> None:
        state.log("twice", 2 * row["epoch"])

    run = tmp_path / "run"
    broken_off(monkeypatch, 8, made(), run_dir=run, checkpoint_every=1, on_epoch=on_epoch)
    record = ravine.train(made(), resume=run, on_epoch=on_epoch)
    assert record.history.column("twice") == [2.0, 4.0, 6.0, 8.0]


def test_a_run_that_a_hook_broke_goes_on_without_it(tmp_path: Path) -> None:
    run = tmp_path / "run"

    def on_step(state: StepState) -> None:
        if state.step == 5:
            raise ValueError("mine")

    with pytest.raises(HookError):
        ravine.train(
            made(), OPTIMIZER, **SETTINGS, run_dir=run, checkpoint_every=1, on_step=on_step
        )
    whole = ravine.train(made(), OPTIMIZER, **SETTINGS)
    resumed = ravine.train(made(), resume=run)
    assert resumed.history.column("train/loss") == whole.history.column("train/loss")
