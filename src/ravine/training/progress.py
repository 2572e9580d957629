"""What is said of a run under way: its smoothed loss, its speed, the time it will still take."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

__all__ = ["TIME_CONSTANT", "WINDOW", "Progress", "Smoothed"]

TIME_CONSTANT = 100
"""Steps after which a loss counts 1/e of what it did in the smoothed loss."""

WINDOW = 5.0
"""Seconds of training over which the speed is taken; two reports where they are further apart."""


class Smoothed:
    """A bias-corrected exponential average of the losses of steps.

    Equation:
        smoothed_t = sum_k d^(t-k) loss_k / sum_k d^(t-k),  d = exp(-1 / constant)

    The sums are over the steps k <= t that were told. A loss that is not finite is left out, so
    that a step that was skipped because of it does not spoil the average for ever.

    Args:
        constant: the time constant in steps, > 0.

    Example:
        >>> smoothed = Smoothed(1 / math.log(2))  # d = 1/2
        >>> smoothed.value is None
        True
        >>> for loss in (4.0, 1.0):
        ...     smoothed.add(loss)
        >>> smoothed.value  # (4/2 + 1) / (1/2 + 1)
        2.0

    Differs from: the slider of TensorBoard, which counts points that were written, not steps.

    Source: the bias correction of Kingma & Ba 2015, section 3.
    """

    def __init__(self, constant: float = TIME_CONSTANT) -> None:
        self._keep = math.exp(-1 / constant)
        self._sum = self._weight = 0.0

    def add(self, loss: float) -> None:
        """Take in the loss of the next step."""
        if math.isfinite(loss):
            self._sum = self._keep * self._sum + loss
            self._weight = self._keep * self._weight + 1.0

    def state(self) -> list[float]:
        """Return what `load` takes to go on with."""
        return [self._sum, self._weight]

    def load(self, state: list[float]) -> None:
        """Go on from where another was."""
        self._sum, self._weight = state

    @property
    def value(self) -> float | None:
        """The average, or None before the first finite loss."""
        return self._sum / self._weight if self._weight else None


class Progress:
    """The speed of a run and the time it has left, from steps and times alone.

    Times between `begin` and `end` are training; what lies between an `end` and the next `begin`
    (validation, writing) counts for the time left, not for the speed.

    Args:
        clock: seconds that never run backwards.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.smoothed = Smoothed()
        self.samples_per_second: float | None = None
        self._clock = clock
        self._trained = 0.0
        self._began: float | None = None
        self._ended: float | None = None
        self._pauses: list[float] = [0.0, 0.0]  # how many, and their seconds
        self._points: deque[tuple[float, int, int]] = deque()  # seconds trained, steps, rows

    def begin(self) -> None:
        """Training goes on."""
        now = self._clock()
        if self._ended is not None:
            self._pauses[0] += 1
            self._pauses[1] += now - self._ended
        self._began, self._ended = now, None

    def end(self) -> None:
        """An epoch's training is over; something else is done until the next `begin`."""
        now = self._clock()
        if self._began is not None:
            self._trained += now - self._began
        self._began, self._ended = None, now

    def report(self, step: int, rows: int, *, steps: int | None, ends: int) -> float | None:
        """Take the speed at a step; return the seconds left, or None where it cannot be told.

        The first report of a run has no speed yet: what came before it is mostly the compiling of
        kernels.

        Args:
            step: steps made so far.
            rows: rows trained on so far.
            steps: steps of the whole run; None where that is not known.
            ends: epochs whose end is still to come, with the validation there.
        """
        running = 0.0 if self._began is None else self._clock() - self._began
        self._points.append((self._trained + running, step, rows))
        while len(self._points) > 2 and self._points[-1][0] - self._points[1][0] >= WINDOW:
            self._points.popleft()
        (then, first, before), (now, last, after) = self._points[0], self._points[-1]
        if now <= then or last <= first:
            return None
        self.samples_per_second = (after - before) / (now - then)
        if steps is None:
            return None
        pause = self._pauses[1] / self._pauses[0] if self._pauses[0] else 0.0
        return (steps - step) * (now - then) / (last - first) + ends * pause
