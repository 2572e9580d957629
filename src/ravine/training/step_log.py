"""``steps.jsonl``: a row now and then inside of epochs, for those that take hours."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ravine.training.events import Event, Recovered, RunStarted, StepDone
from ravine.training.lines import add_line, keep_lines
from ravine.training.pace import Sparser

__all__ = ["StepLog"]


class StepLog:
    """A listener that adds rows to a file: step, epoch, losses, lr, gradient norm, speed.

    Ten rows a second at first, then fewer and fewer (`ravine.training.pace.Sparser`), so that a
    week of steps takes 14 MB. Where a run goes on, the rows behind the step that it goes on from
    are cut off.

    Args:
        path: the file; made with the first row.
        clock: seconds that never run backwards.

    Raises:
        RunDirectoryError: the file cannot be written.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._path = path
        self._clock = clock
        self._sparser = Sparser(clock=clock)

    def __call__(self, event: Event) -> None:
        """Take in an event."""
        if isinstance(event, (RunStarted, Recovered)):
            count = keep_lines(self._path, lambda row: row.get("step", 0) <= event.step)
            self._sparser = Sparser(count, clock=self._clock)
        elif isinstance(event, StepDone) and self._sparser.due():
            add_line(self._path, _row(event))


def _row(event: StepDone) -> dict[str, Any]:
    row = {
        "step": event.step,
        "epoch": event.epoch,
        "rows": event.rows,
        "loss": event.loss,
        "smoothed_loss": event.smoothed_loss,
        "lr": event.lr,
        "gradient_norm": event.gradient_norm,
        "samples_per_second": event.samples_per_second,
    }
    return {name: value for name, value in row.items() if value is not None}
