"""A run as plain lines, for a file, a pipe or a log, that stay few over many hours."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Self

from ravine.cli.display import clock_time, describe_run, row_words
from ravine.cli.outlet import Outlet
from ravine.report.words import number
from ravine.training.events import (
    EpochDone,
    Event,
    Found,
    Recovered,
    RunEnded,
    RunStarted,
    StepDone,
)

__all__ = ["PlainDisplay"]

FREE = 30
"""Epochs that have a line each, however quickly they come."""

INTERVALS = ((60, 1), (300, 2), (600, 5), (3600, 10), (21_600, 30))
"""Until so many seconds of the run, so many seconds at least between two lines; 60 after that."""

QUIET = 10
"""Seconds without a line after which an epoch under way is told of."""


class PlainDisplay:
    """A line for each epoch while they are few, later one now and then; the last epoch always.

    Args:
        outlet: where to write. A line that its reader has no room for is left out, and counted.
        clock: seconds that never run backwards.
    """

    def __init__(self, outlet: Outlet, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._outlet = outlet
        self._clock = clock
        self._start = self._last = clock()
        self._epochs = self._steps = self._told = self._missed = 0
        self._left: float | None = None
        self._held: dict[str, Any] | None = None
        self._thinned = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __call__(self, event: Event) -> None:
        """Write what is to be said of an event; flushed, so that a follower sees it at once."""
        if isinstance(event, RunStarted):
            self._epochs, self._steps = event.epochs, event.steps
            self._start = self._last = self._clock()
            self._write(describe_run(event), wait=True)
        elif isinstance(event, StepDone):
            self._left = event.seconds_left
            if self._clock() - self._last >= max(QUIET, self._interval()):
                self._write([self._step_line(event)])
        elif isinstance(event, EpochDone):
            self._epoch(event.row)
        elif isinstance(event, Recovered):
            self._write([f"  note: {event.text}"])
        elif isinstance(event, Found):
            self._write([f"  {event.finding.severity}: {event.text}"])
        elif isinstance(event, RunEnded) and self._held is not None:
            self._write([self._epoch_line(self._held, None)], wait=True)

    def _epoch(self, row: dict[str, Any]) -> None:
        self._told += 1
        if self._told <= FREE or self._clock() - self._last >= self._interval():
            shown = self._write([self._epoch_line(row, self._left)])
            self._held = None if shown else row
            return
        self._held = row
        if not self._thinned:
            self._thinned = True
            self._write(["  not every epoch has a line from here on; history.jsonl has them all"])

    def _interval(self) -> float:
        run = self._clock() - self._start
        return next((interval for until, interval in INTERVALS if run < until), 60)

    def _write(self, lines: list[str], *, wait: bool = False) -> bool:
        """Write lines and return True, or count them where there is no room for them."""
        if not wait and not self._outlet.ready():
            self._missed += len(lines)
            return False
        if self._missed:
            lines = [f"  {self._missed} lines left out while nobody read", *lines]
            self._missed = 0
        self._last = self._clock()
        self._outlet.write("".join(line + "\n" for line in lines))
        self._outlet.flush()
        return True

    def _epoch_line(self, row: dict[str, Any], left: float | None) -> str:
        epoch = str(row.get("epoch", "?")).rjust(len(str(self._epochs)))
        words = row_words(row)
        if left is not None and left >= QUIET:
            words.append(f"{clock_time(left)} left")
        return f"epoch {epoch}/{self._epochs}  {'  '.join(words)}"

    def _step_line(self, event: StepDone) -> str:
        total = f"/{self._steps:,}" if self._steps else ""
        words = [f"loss {number(event.loss)}"]
        if event.smoothed_loss is not None:
            words.append(f"smoothed {number(event.smoothed_loss)}")
        words.append(f"lr {number(event.lr)}")
        if event.gradient_norm is not None:
            words.append(f"gradient norm {number(event.gradient_norm)}")
        if event.samples_per_second is not None:
            words.append(f"{number(event.samples_per_second)} samples/s")
        if event.seconds_left is not None:
            words.append(f"{clock_time(event.seconds_left)} left")
        return f"  epoch {event.epoch}, step {event.step:,}{total}  {'  '.join(words)}"
