"""Which display a stream gets, and the plain one: a line for each epoch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import IO, Any, Protocol, Self

from ravine.report.words import PARTS, as_number, duration, label, number, share
from ravine.training.events import EpochDone, Event, RunStarted

__all__ = ["Display", "PlainDisplay", "choose_display", "describe_run", "row_words"]


class Display(Protocol):
    """Shows the events of a run; used in a ``with`` so that the terminal is always given back."""

    def __call__(self, event: Event) -> None:
        """Show one event."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(self, *error: object) -> None:
        """Leave the stream as it was found."""


def choose_display(stream: IO[str], environment: Mapping[str, str] | None = None) -> Display:
    """Choose the live line for a terminal and plain lines for everything else.

    Args:
        stream: where to show the run.
        environment: the process's own when None. ``CI`` or ``TERM=dumb`` ask for plain lines.
    """
    environment = os.environ if environment is None else environment
    in_ci = environment.get("CI", "").lower() not in ("", "0", "false")
    if not stream.isatty() or in_ci or environment.get("TERM") in ("dumb", "unknown"):
        return PlainDisplay(stream)
    from ravine.cli.live import LiveDisplay

    return LiveDisplay(stream)


class PlainDisplay:
    """One line for each epoch, for a file, a pipe or a log."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._epochs = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __call__(self, event: Event) -> None:
        """Write the event as lines; flushed, so that whoever follows the file sees it at once."""
        lines: list[str] = []
        if isinstance(event, RunStarted):
            self._epochs = event.epochs
            lines = describe_run(event)
        elif isinstance(event, EpochDone):
            epoch = str(event.row.get("epoch", "?")).rjust(len(str(self._epochs)))
            words = "  ".join(row_words(event.row))
            lines = [f"epoch {epoch}/{self._epochs}  {words}"]
        for line in lines:
            self._stream.write(line + "\n")
        self._stream.flush()


def describe_run(event: RunStarted) -> list[str]:
    """Say what is about to run, and what the user should know before."""
    rows = f"batches of {event.batch_size:,}"
    return [
        f"{event.task}: {event.weights:,} weights, {event.optimizer}, {event.loss}",
        f"  {event.epochs:,} epochs, {event.steps:,} steps, {rows}; kernel: {event.kernel}",
        *(f"  note: {note}" for note in event.notes),
    ]


def row_words(row: Mapping[str, Any]) -> list[str]:
    """Turn a row of the history into words, results first.

    >>> row_words({"epoch": 1, "lr": 0.001, "train/loss": 2.1, "valid/accuracy": 0.5})
    ['train loss 2.1', 'valid accuracy 50.00 %', 'lr 0.001']
    """
    order = sorted((key for key in row if key not in ("epoch", "step")), key=_rank)
    return [_cell(key, row[key]) for key in order if row[key] is not None]


def _rank(key: str) -> int:
    return 0 if key.partition("/")[0] in PARTS else 2 if key == "seconds" else 1


def _cell(key: str, value: Any) -> str:
    if key == "seconds":
        return duration(as_number(value))
    words = key.replace("/", " ") if key == "lr" or "/" in key else label(key)
    return f"{words} {share(value) if key.endswith('/accuracy') else number(value)}"
