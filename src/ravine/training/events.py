"""What happens during a run, one frozen dataclass each.

Training computes and never prints: it calls every listener with these objects, in this order::

    RunStarted, (StepDone ..., EpochDone) for every epoch, RunEnded

and whoever wants to show the run (the command, a notebook, a logger) is a listener.

>>> done = StepDone(step=20, epoch=1, loss=2.25, lr=0.001, gradient_norm=None)
>>> done.loss
2.25
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "EpochDone",
    "Event",
    "Found",
    "Listener",
    "Recovered",
    "RunEnded",
    "RunStarted",
    "StepDone",
]


@dataclass(frozen=True)
class RunStarted:
    """Everything is resolved and the first step is about to be taken.

    ``optimizer`` and ``loss`` are the expressions that make them, ``weights`` counts the numbers
    that are trained, ``steps`` is the number of updates planned over all epochs (0 where it is not
    known), ``kernel`` says how the updates are executed, and ``notes`` are sentences that the user
    should read. ``step`` and ``epoch`` are what is done already where a run goes on, and ``config``
    is what was asked for, resolved.
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
    step: int = 0
    epoch: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StepDone:
    """An update was made; sent at most about ten times a second, so most updates send none.

    ``step`` counts updates from 1 over the whole run, ``epoch`` counts from 1, ``loss`` is the
    training loss of this step's batch, ``lr`` the rate it used, and ``gradient_norm`` the Euclidean
    norm of the whole gradient before clipping (None where it was not computed).

    ``smoothed_loss`` is a bias-corrected exponential average over every step whose loss was looked
    at (time constant 100 steps; on a GPU up to 32 steps behind), ``samples_per_second`` the speed
    over the last 5 seconds of training without validation, ``seconds_left`` an estimate with
    validation, and ``rows`` what was trained on so far. Each of the three is None before it can be
    told, the time left also where the number of steps is not known.
    """

    step: int
    epoch: int
    loss: float
    lr: float
    gradient_norm: float | None
    smoothed_loss: float | None = None
    samples_per_second: float | None = None
    seconds_left: float | None = None
    rows: int = 0


@dataclass(frozen=True)
class EpochDone:
    """A pass over the training data ended; ``row`` is the row that was added to the history."""

    row: dict[str, Any]


@dataclass(frozen=True)
class Recovered:
    """Something was not finite, and the run goes on all the same.

    ``step`` and ``epoch`` are where it goes on: what was made behind them is taken back, so rows
    of later steps count no longer. ``text`` is a sentence that the user should read.
    """

    step: int
    epoch: int
    text: str


@dataclass(frozen=True)
class Found:
    """The watch found something; the run goes on.

    ``step`` is how many were made, ``finding`` a `ravine.watch.Finding`, and ``text`` what the user
    should read of it: its code, what was measured, and where to read on.
    """

    step: int
    finding: Any
    text: str


@dataclass(frozen=True)
class RunEnded:
    """The run is over, for whatever reason; ``record`` is what ``ravine.train`` returns.

    Sent before an error of the run (a loss that is not finite, Ctrl-C) is raised, so that what
    was reached is never lost.
    """

    record: Any  # ravine.training.record.Record, which would import this file


Event = RunStarted | StepDone | EpochDone | Recovered | Found | RunEnded
Listener = Callable[[Event], object]
