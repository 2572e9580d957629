"""Which display a stream gets, and the words that displays share."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, Protocol, Self

from ravine.cli.outlet import Outlet
from ravine.report.words import PARTS, as_number, duration, label, number, share
from ravine.training.events import Event, RunStarted

__all__ = ["Display", "choose_display", "clock_time", "describe_run", "row_words"]


class Display(Protocol):
    """Shows the events of a run; used in a ``with`` so that the terminal is always given back."""

    def __call__(self, event: Event) -> None:
        """Show one event."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(self, *error: object) -> None:
        """Leave the stream as it was found."""


def choose_display(outlet: Outlet, environment: Mapping[str, str] | None = None) -> Display:
    """Choose the live line for a terminal and plain lines for everything else.

    Args:
        outlet: where to show the run.
        environment: the process's own when None. ``CI`` or ``TERM=dumb`` ask for plain lines.
    """
    environment = os.environ if environment is None else environment
    in_ci = environment.get("CI", "").lower() not in ("", "0", "false")
    if not outlet.isatty() or in_ci or environment.get("TERM") in ("dumb", "unknown"):
        from ravine.cli.plain import PlainDisplay

        return PlainDisplay(outlet)
    from ravine.cli.live import LiveDisplay

    return LiveDisplay(outlet)


def describe_run(event: RunStarted) -> list[str]:
    """Say what is about to run, and what the user should know before."""
    rows = f"batches of {event.batch_size:,}"
    steps = f"{event.steps:,} steps" if event.steps else "steps not known before"
    return [
        f"{event.task}: {event.weights:,} weights, {event.optimizer}, {event.loss}",
        f"  {event.epochs:,} epochs, {steps}, {rows}; kernel: {event.kernel}",
        *(f"  note: {note}" for note in event.notes),
    ]


def clock_time(seconds: float) -> str:
    """Write a time as minutes and seconds, with hours and days where there are any.

    >>> clock_time(75), clock_time(4000), clock_time(200_000)
    ('1:15', '1:06:40', '2d 7:33:20')
    """
    if not math.isfinite(seconds):
        return "-:--"
    days, rest = divmod(max(0, math.ceil(seconds)), 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    if days:
        return f"{days:,}d {hours}:{minutes:02d}:{rest:02d}"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


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
