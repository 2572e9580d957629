"""What the regularisers of a run add to it: parts that act while it trains, and an early end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ravine.errors import ArgumentTypeError, unknown_name
from ravine.regularize import EarlyStopping, Part
from ravine.tasks import Task


def parts_of(regularizers: Sequence[Any], seed: int) -> list[Part]:
    """Return what acts at every step, in order; one of them at most chooses the gradient's place."""
    found = [one.part(seed=seed) for one in regularizers]
    parts = [part for part in found if part is not None]
    twice = [part for part in parts if part.ascends]
    if len(twice) > 1:
        raise ArgumentTypeError(
            "two regularisers choose where the gradient is taken",
            got=" and ".join(type(part).__name__ for part in twice),
            do="leave one out",
        )
    return parts


def stopper_of(regularizers: Sequence[Any], task: Task) -> EarlyStopping | None:
    """Return what ends the run early, or None; it watches a number that the task measures."""
    stoppers: list[EarlyStopping] = [
        found for one in regularizers if (found := one.stopper()) is not None
    ]
    if not stoppers:
        return None
    if len(stoppers) > 1:
        raise ArgumentTypeError(
            "two regularisers stop the run",
            got=" and ".join(map(repr, stoppers)),
            do="leave one out",
        )
    measured = ["train/loss"]
    if task.valid is not None:
        measured += ["valid/loss", *(f"valid/{name}" for name in task.metric_functions())]
    if stoppers[0].metric not in measured:
        where = f"early_stopping on task {task.name!r}"
        raise unknown_name("metric", stoppers[0].metric, measured, where=where)
    return stoppers[0]
