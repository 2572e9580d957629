"""When a checkpoint is written."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from ravine.errors import ArgumentError, CheckpointError
from ravine.training.best import Best
from ravine.training.checkpoints import Led, Places, Position
from ravine.training.loop import Loop
from ravine.training.record import History
from ravine.training.signals import Signals
from ravine.training.state import state_of

Every = int | str | None
"""Steps, seconds as "30s", "auto", or None for a checkpoint at the end only."""

FIRST, SHARE = 10.0, 60.0
"""With "auto": seconds before the first checkpoint, and between two of them at least this many
times what the last one cost (copy and writing): less than 2 % of the run's time."""


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


def check_keep(count: Any) -> int:
    """Return an argument ``keep_checkpoints``.

    Raises:
        ArgumentError: it is no number of checkpoints.
    """
    if isinstance(count, int) and not isinstance(count, bool) and count >= 1:
        return count
    raise ArgumentError(
        "keep_checkpoints cannot be used", got=repr(count), expected="an integer >= 1"
    )


@dataclass
class Keeper:
    """Writes the checkpoints of a loop, in the store, when they are due.

    Every process of a run has one; the first one's clock decides.
    """

    loop: Loop
    places: Places
    store: Led
    every: Interval
    history: History
    signals: Signals
    best: Best
    agreed: Callable[[int], int] = int
    _step: int = 0
    _time: float = field(default_factory=time.monotonic)
    _cost: float = 0.0
    _start: Led | None = None

    def __post_init__(self) -> None:
        self._step = self.loop.step

    def begin(self) -> None:
        """Keep the state that the run begins with, or went back to, until there is a newer one."""
        self._start = self.places.memory()
        try:
            self._start.save(self.position, self.state())
        except CheckpointError:
            if self.best.kept:  # on a disk
                raise
            self.every = Interval()  # a part of it cannot be kept, and need not be

    @property
    def position(self) -> Position:
        """Where the loop stands."""
        return Position(self.loop.step, self.loop.epoch)

    def earlier(self) -> dict[str, Any]:
        """Return the newest state of the loop that was kept.

        Raises:
            CheckpointError: none can be read.
        """
        position, state, passed = self.store.newest()
        if self._start is not None:
            start, begun, _ = self._start.newest()
            if start is not None and (position is None or start >= position):
                state = begun
        if state is None:
            raise CheckpointError("there is no earlier state of the run", got="; ".join(passed))
        return state["loop"]  # type: ignore[no-any-return]

    def drop_after(self, position: Position) -> None:
        """Take away the checkpoints behind a position, to which the loop went back."""
        self.store.drop_after(position)
        self._step = self.loop.step
        self.begin()

    def after_step(self) -> None:
        """Write a checkpoint if one is due; end the run if a signal asked for it."""
        self.after_epoch()
        self.signals.check()

    @property
    def cost(self) -> float:
        """Seconds that a checkpoint takes: its copy, and its writing, which may take a core."""
        return self._cost + self.store.seconds

    def look(self, row: dict[str, Any]) -> None:
        """Take in the row of the epoch that just ended, which may be the best."""
        self.best.look(row, self.position, self._state)  # the epoch looked at its weights

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
            and self.store.free
            and time.monotonic() - self._time >= max(every.seconds, every.share * self.cost)
        )

    def save(self) -> None:
        """Write a checkpoint of the loop as it stands.

        Raises:
            NonFiniteError: a loss or weight is not finite; nothing is written then.
        """
        start = time.monotonic()
        loop = self.loop
        state = self.state()
        self.best.write()
        self.store.save(self.position, state)
        self._step, self._time = loop.step, time.monotonic()
        self._cost = self._time - start

    def state(self) -> dict[str, Any]:
        """Return all that a checkpoint holds.

        Raises:
            NonFiniteError: a loss or weight is not finite.
        """
        self.loop.check_weights()
        return self._state()

    def _state(self) -> dict[str, Any]:
        rows = [row for row in self.history if row["epoch"] <= self.loop.epoch]
        return {"loop": state_of(self.loop), "history": rows, "best": self.best.value}

    def end(self, *, whole: bool) -> None:
        """Wait until everything is on the disk.

        Args:
            whole: the loop stands between two steps: a last checkpoint is written.
        """
        try:
            if whole and self.best.kept:
                self.save()
            self.best.wait()
        finally:
            self.store.close()
