"""Schedules that start at `lr` and go on as long as they are asked to, unless given `steps`.

The classes are written in lower case because they are used as functions and named in expressions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from ravine.errors import ArgumentError
from ravine.schedules import checks
from ravine.schedules.base import Schedule


@final
@dataclass(frozen=True, repr=False)
class constant(Schedule):  # noqa: N801
    """The same learning rate at every step.

        lr(t) = lr

    Args:
        lr: the learning rate, finite and at least 0.
        steps: its length when something follows it; a whole number of at least 1, or None for ever.

    Raises:
        ArgumentError, ArgumentTypeError: an argument is outside of its bounds.

    Example:
        >>> constant(0.1)(1000)
        0.1
        >>> (constant(0.1, steps=10) >> constant(0.01))(10)
        0.01

    Differs from torch's `ConstantLR`, which multiplies the lr by a factor for a number of steps and
    then lets go of it. Like optax's `constant_schedule`; Keras writes a number.
    """

    lr: float
    steps: int | None = None

    def __post_init__(self) -> None:
        self._store(
            lr=checks.number(self.lr, "lr of constant", least=0),
            steps=checks.optional_count(self.steps, "steps of constant"),
        )

    def equation(self, t: int) -> float:
        return self.lr


@final
@dataclass(frozen=True, repr=False)
class exponential(Schedule):  # noqa: N801
    """The learning rate falls by the same fraction at every step.

        lr(t) = lr * exp(-rate * t)

    Args:
        lr: the learning rate at step 0, finite and at least 0.
        rate: the decay for each step, finite. It may be negative, which makes the lr grow (as in
            a search for the largest usable lr), if `steps` says where to stop.
        steps: its length, a whole number of at least 1, or None for ever. lr(steps) is held after.

    Raises:
        ArgumentError, ArgumentTypeError: an argument is outside of its bounds, or the lr would
            grow for ever or beyond the largest float.

    Example:
        >>> schedule = exponential(0.1, rate=0.5)
        >>> [round(schedule(step), 4) for step in range(3)]
        [0.1, 0.0607, 0.0368]

    Differs from torch's `ExponentialLR`, which takes the factor gamma = exp(-rate); from optax's
    `exponential_decay` and Keras's `ExponentialDecay`, which write decay_rate**(t / decay_steps).
    """

    lr: float
    rate: float
    steps: int | None = None

    def __post_init__(self) -> None:
        self._store(
            lr=checks.number(self.lr, "lr of exponential", least=0),
            rate=checks.number(self.rate, "rate of exponential"),
            steps=checks.optional_count(self.steps, "steps of exponential"),
        )
        if self.rate < 0 and not self._stays_finite():
            raise ArgumentError(
                "exponential grows beyond every bound",
                got=f"rate={self.rate!r}, steps={self.steps}",
                expected="a rate of at least 0, or steps that end while the lr is finite",
            )

    def _stays_finite(self) -> bool:
        try:
            return self.steps is not None and math.isfinite(self.equation(self.steps))
        except OverflowError:
            return False

    def equation(self, t: int) -> float:
        return self.lr * math.exp(-self.rate * t)


@final
@dataclass(frozen=True, repr=False)
class step(Schedule):  # noqa: N801
    """The learning rate is multiplied by a factor once every so many steps.

        lr(t) = lr * factor**floor(t / every)

    Args:
        lr: the learning rate at step 0, finite and at least 0.
        every: the number of steps between two multiplications, a whole number of at least 1.
        factor: the multiplier, from 0 to 1.
        steps: its length, a whole number of at least 1, or None for ever. lr(steps) is held after.

    Raises:
        ArgumentError, ArgumentTypeError: an argument is outside of its bounds.

    Example:
        >>> schedule = step(0.1, every=30, factor=0.5)
        >>> schedule(29), schedule(30), schedule(60)
        (0.1, 0.05, 0.025)

    Differs from torch's `StepLR` in its names only (`step_size`, `gamma`). optax's and Keras's
    exponential decays do the same with `staircase=True`.
    """

    lr: float
    every: int
    factor: float = 0.1
    steps: int | None = None

    def __post_init__(self) -> None:
        self._store(
            lr=checks.number(self.lr, "lr of step", least=0),
            every=checks.count(self.every, "every of step"),
            factor=checks.number(self.factor, "factor of step", least=0, most=1),
            steps=checks.optional_count(self.steps, "steps of step"),
        )

    def equation(self, t: int) -> float:
        return self.lr * float(self.factor ** (t // self.every))
