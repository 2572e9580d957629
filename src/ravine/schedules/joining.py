"""Schedules one after the other: ``>>``, and the warmup that rises to what follows it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from numbers import Real
from typing import Any, SupportsFloat, SupportsIndex, final

from ravine.errors import ArgumentError, ArgumentTypeError
from ravine.schedules import checks
from ravine.schedules.base import Schedule
from ravine.schedules.decays import constant


@final
@dataclass(frozen=True, repr=False)
class warmup(Schedule):  # noqa: N801
    """The learning rate rises on a straight line to the first value of what follows.

        lr(t) = peak * (start + (1 - start) * (t + 1) / steps)

    where peak is the first value of the schedule on its right: ``warmup(100) >> cosine(900,
    peak=1e-3)``. The last step of the warmup has the whole peak, and none has a rate of 0.

    Args:
        steps: its length, a whole number of at least 1.
        start: the fraction of the peak that the rise starts from, from 0 to 1.

    Raises:
        ArgumentError, ArgumentTypeError: an argument is outside of its bounds. ArgumentError also
            when it is called, or given to an optimizer, with nothing on its right.

    Example:
        >>> schedule = warmup(4) >> constant(1.0)
        >>> [schedule(step) for step in range(6)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]

    Differs from torch's `LinearLR`, optax's `warmup_cosine_decay_schedule` and Keras's
    `CosineDecay(warmup_steps=...)`, which count t instead of t + 1: their first update has the
    starting rate itself (with optax and Keras by default 0, an update that does nothing).

    Source: Goyal et al. 2017, section 2.2 (gradual warmup).
    """

    steps: int
    start: float = 0.0

    def __post_init__(self) -> None:
        self._store(
            steps=checks.count(self.steps, "steps of warmup"),
            start=checks.number(self.start, "start of warmup", least=0, most=1),
        )

    @property
    def complete(self) -> bool:
        return False

    def rise(self, t: int, peak: float) -> float:
        """Return the learning rate at step t on the way to `peak`."""
        return peak * (self.start + (1 - self.start) * ((t + 1) / self.steps))

    def equation(self, t: int) -> float:
        raise _incomplete(self)


@final
@dataclass(frozen=True, repr=False)
class Joined(Schedule):
    """Schedules one after the other; what ``>>`` makes. Each piece starts from its own step 0."""

    pieces: tuple[Schedule, ...]
    _starts: tuple[int, ...] = field(init=False, compare=False)
    _firsts: tuple[float, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        lengths = []
        for piece, following in zip(self.pieces, self.pieces[1:], strict=False):
            if piece.length is None:
                raise _endless(piece, following)
            lengths.append(piece.length)
        self._store(
            _starts=tuple(accumulate(lengths, initial=0)),
            _firsts=self._first_values() if self.complete else (),
        )

    def _first_values(self) -> tuple[float, ...]:
        """The value of each piece at its own step 0, from the right: a warmup needs the next."""
        firsts: list[float] = []
        for piece in reversed(self.pieces):
            firsts.append(piece.rise(0, firsts[-1]) if isinstance(piece, warmup) else piece(0))
        return tuple(reversed(firsts))

    @property
    def length(self) -> int | None:
        last = self.pieces[-1].length
        return None if last is None else self._starts[-1] + last

    @property
    def complete(self) -> bool:
        return self.pieces[-1].complete

    def equation(self, t: int) -> float:
        if not self._firsts:
            raise _incomplete(self)
        index = self._index(t)
        piece, since = self.pieces[index], t - self._starts[index]
        if isinstance(piece, warmup):
            return piece.rise(since, self._firsts[index + 1])
        return piece.equation(since)

    def _index(self, t: int) -> int:
        return bisect_right(self._starts, t) - 1

    def observe(self, value: SupportsFloat, *, step: SupportsIndex | None = None) -> None:
        if step is None:
            for piece in self.pieces:
                piece.observe(value)
        else:
            t = checks.step_index(step)
            index = self._index(t)
            self.pieces[index].observe(value, step=t - self._starts[index])

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the pieces in order under "pieces"; empty if all are pure."""
        states = [piece.state_dict() for piece in self.pieces]
        return {"pieces": states} if any(states) else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._expect_state(state, tuple(self.state_dict()))
        states = state.get("pieces", [])
        if state and len(states) != len(self.pieces):
            raise ArgumentError(
                "this state belongs to another schedule",
                where=repr(self),
                got=f"the states of {len(states)} pieces",
                expected=f"the states of {len(self.pieces)} pieces",
            )
        for piece, piece_state in zip(self.pieces, states, strict=False):
            piece.load_state_dict(piece_state)

    def __repr__(self) -> str:
        return " >> ".join(map(repr, self.pieces))


def join(left: Schedule | float, right: Schedule | float) -> Schedule:
    """Return ``left >> right``; a number stands for a constant.

    Raises:
        ArgumentError: the left schedule has no end.
        ArgumentTypeError: one side is neither a schedule nor a number.
    """
    pieces: list[Schedule] = []
    for side in (left, right):
        schedule = _as_piece(side)
        # Joining is associative, so that (a >> b) >> c and a >> (b >> c) are equal and alike.
        pieces.extend(schedule.pieces if isinstance(schedule, Joined) else [schedule])
    return Joined(tuple(pieces))


def as_schedule(value: float | Schedule) -> Schedule:
    """Return a schedule as it is, and a number as a constant.

    Args:
        value: a schedule that can be called, or a finite number of at least 0.

    Raises:
        ArgumentError: the number is out of range, or the schedule ends in a warmup.
        ArgumentTypeError: it is neither a schedule nor a number (a bool is not a number).

    Example:
        >>> as_schedule(0.1)
        constant(0.1)
    """
    schedule = _as_piece(value)
    if not schedule.complete:
        raise _incomplete(schedule)
    return schedule


def _as_piece(value: Schedule | float) -> Schedule:
    if isinstance(value, Schedule):
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        own = "subclass ravine.schedules.Schedule, as its documentation shows"
        raise ArgumentTypeError(
            "this is not a learning rate",
            got=f"{value!r} of type {type(value).__name__}",
            expected="a number, or a schedule such as cosine(900, peak=1e-3)",
            do=own if callable(value) else "",
        )
    return constant(value)


def _incomplete(schedule: Schedule) -> ArgumentError:
    example = f"put what it rises to on its right: {schedule!r} >> cosine(900, peak=1e-3)"
    if isinstance(schedule, Joined):
        *others, last = schedule.pieces
        if not any(isinstance(piece, warmup) for piece in others):
            rest = " >> ".join(map(repr, others))
            example = f"put the warmup before what it rises to: {last!r} >> {rest}"
    return ArgumentError(
        "a warmup needs a learning rate to rise to, and nothing follows it",
        got=repr(schedule),
        do=example,
    )


def _endless(piece: Schedule, following: Schedule) -> ArgumentError:
    has_steps = hasattr(piece, "steps")
    return ArgumentError(
        f"{piece!r} never ends, so nothing can follow it",
        got=f"{piece!r} >> {following!r}",
        expected="a schedule with a length on the left of >>",
        do=f"give it a length: {repr(piece)[:-1]}, steps=...)" if has_steps else "put it last",
    )
