"""When a checkpoint is written."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from ravine.errors import ArgumentError
from ravine.training.checkpoints import Position, Store
from ravine.training.loop import Loop
from ravine.training.record import History
from ravine.training.signals import Signals
from ravine.training.state import state_of

Every = int | str | None
"""Steps, seconds as "30s", "auto", or None for a checkpoint at the end only."""

FIRST, SHARE = 10.0, 50.0
"""With "auto": seconds before the first checkpoint, and between two of them at least this many
times what the last one cost, which is 2 % of the run's time."""


@dataclass(frozen=True)
class Interval:
    """How often: after a number of steps, of seconds, or both None for the end only."""

    steps: int | None = None
    seconds: float | None = None
    share: float = 0.0


def interval(every: Every | Literal["auto"]) -> Interval:
    """Return what an argument ``checkpoint_every`` means.

    >>> interval("30s").seconds, interval(100).steps
    (30.0, 100)

    Raises:
        ArgumentError: it is none of the forms.
    """
    if every is None or every == "never":  # a file has no None
        return Interval()
    if every == "auto":
        return Interval(seconds=FIRST, share=SHARE)
    if isinstance(every, int) and not isinstance(every, bool) and every >= 1:
        return Interval(steps=every)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", every) if isinstance(every, str) else None
    if found and float(found[1]) > 0:
        return Interval(seconds=float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]])
    raise ArgumentError(
        "checkpoint_every cannot be used",
        got=repr(every),
        expected='steps (100), a time ("30s", "5min", "1h"), "auto", or "never" but at the end',
    )


@dataclass
class Keeper:
    """Writes the checkpoints of a loop, in the store, when they are due.

    Every process of a run has one; the first one's clock decides, and it alone has a store.
    """

    loop: Loop
    store: Store | None
    every: Interval
    history: History
    signals: Signals
    agreed: Callable[[int], int] = int
    _step: int = 0
    _time: float = field(default_factory=time.monotonic)
    _cost: float = 0.0

    def __post_init__(self) -> None:
        self._step = self.loop.step

    def after_step(self) -> None:
        """Write a checkpoint if one is due; end the run if a signal asked for it."""
        self.after_epoch()
        self.signals.check()

    def after_epoch(self) -> None:
        """Write a checkpoint if one is due."""
        every = self.every
        if every.steps is not None:
            due = self.loop.step - self._step >= every.steps
        else:
            due = bool(self.agreed(self._is_time()))
        if due:
            self.save()

    def _is_time(self) -> bool:
        every = self.every
        return (
            every.seconds is not None
            and self.store is not None
            and not self.store.busy
            and time.monotonic() - self._time >= max(every.seconds, every.share * self._cost)
        )

    def save(self) -> None:
        """Write a checkpoint of the loop as it stands."""
        start = time.monotonic()
        loop = self.loop
        state: dict[str, Any] = {"loop": state_of(loop), "history": list(self.history)}
        if self.store is not None:
            self.store.save(Position(loop.step, loop.epoch), state)
        self._step, self._time = loop.step, time.monotonic()
        self._cost = self._time - start

    def end(self, *, whole: bool) -> None:
        """Wait until everything is on the disk.

        Args:
            whole: the loop stands between two steps: a last checkpoint is written.
        """
        try:
            if whole:
                self.save()
        finally:
            if self.store is not None:
                self.store.close()
