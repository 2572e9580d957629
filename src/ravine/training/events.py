"""What happens during a run, one frozen dataclass each.

Training computes and never prints: it calls every listener with these objects, in this order::

    RunStarted, (StepDone ..., EpochDone) for every epoch, RunEnded

and whoever wants to show the run (the command, a notebook, a logger) is a listener.

>>> done = StepDone(step=20, epoch=1, loss=2.25, lr=0.001, gradient_norm=None)
>>> done.loss
2.25
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["EpochDone", "Event", "Listener", "RunEnded", "RunStarted", "StepDone"]


@dataclass(frozen=True)
class RunStarted:
    """Everything is resolved and the first step is about to be taken.

    ``optimizer`` and ``loss`` are the expressions that make them, ``weights`` counts the numbers
    that are trained, ``steps`` is the number of updates planned over all epochs, ``kernel`` says
    how the updates are executed, and ``notes`` are sentences that the user should read.
    """

    task: str
    optimizer: str
    loss: str
    weights: int
    epochs: int
    steps: int
    batch_size: int
    kernel: str
    notes: tuple[str, ...] = ()
    run_dir: str | None = None


@dataclass(frozen=True)
class StepDone:
    """An update was made; sent at most about ten times a second, so most updates send none.

    ``step`` counts updates from 1 over the whole run, ``epoch`` counts from 1, ``loss`` is the
    training loss of this step's batch, ``lr`` the rate it used, and ``gradient_norm`` the Euclidean
    norm of the whole gradient before clipping (None where it was not computed).
    """

    step: int
    epoch: int
    loss: float
    lr: float
    gradient_norm: float | None


@dataclass(frozen=True)
class EpochDone:
    """A pass over the training data ended; ``row`` is the row that was added to the history."""

    row: dict[str, Any]


@dataclass(frozen=True)
class RunEnded:
    """The run is over, for whatever reason; ``record`` is what ``ravine.train`` returns.

    Sent before an error of the run (a loss that is not finite, Ctrl-C) is raised, so that what
    was reached is never lost.
    """

    record: Any  # ravine.training.record.Record, which would import this file


Event = RunStarted | StepDone | EpochDone | RunEnded
Listener = Callable[[Event], object]
