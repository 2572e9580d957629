"""Schedules that go from one learning rate to another in a given number of steps, and stay there.

The classes are written in lower case because they are used as functions and named in expressions.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi
from typing import final

from ravine.schedules import checks
from ravine.schedules.base import Schedule


@final
@dataclass(frozen=True, repr=False)
class linear(Schedule):  # noqa: N801
    """The learning rate goes from `start` to `end` on a straight line.

        lr(t) = start + (end - start) * t / steps

    Args:
        steps: its length, a whole number of at least 1. From t = steps on, the lr is `end`.
        start: the learning rate at step 0, finite and at least 0.
        end: the learning rate after the last step, finite and at least 0.

    Raises:
        ArgumentError, ArgumentTypeError: an argument is outside of its bounds.

    Example:
        >>> schedule = linear(4, start=1.0, end=0.0)
        >>> [schedule(step) for step in range(6)]
        [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]

    Differs from torch's `LinearLR`, which takes factors of the optimizer's lr (1/3 to 1 over 5
    steps unless told). Like optax's `linear_schedule`, and Keras's `PolynomialDecay(power=1)`.
    """

    steps: int
    start: float
    end: float

    def __post_init__(self) -> None:
        self._store(
            steps=checks.count(self.steps, "steps of linear"),
            start=checks.number(self.start, "start of linear", least=0),
            end=checks.number(self.end, "end of linear", least=0),
        )

    def equation(self, t: int) -> float:
        return self.start + (self.end - self.start) * (t / self.steps)


@final
@dataclass(frozen=True, repr=False)
class polynomial(Schedule):  # noqa: N801
    """The learning rate goes from `peak` to `end` as a power of the steps that are left.

        lr(t) = end + (peak - end) * (1 - t / steps)**power

    Args:
        steps: its length, a whole number of at least 1. From t = steps on, the lr is `end`.
        peak: the learning rate at step 0, finite and at least 0.
        end: the learning rate after the last step, finite and at least 0.
        power: the exponent, finite and above 0; 1 is a straight line.

    Raises:
        ArgumentError, ArgumentTypeError: an argument is outside of its bounds.

    Example:
        >>> schedule = polynomial(4, peak=1.0, power=2.0)
        >>> [schedule(step) for step in range(5)]
        [1.0, 0.5625, 0.25, 0.0625, 0.0]

    Differs from torch's `PolynomialLR`, which always ends at 0, and from Keras's `PolynomialDecay`,
    which ends at 1e-4 unless told. Like optax's `polynomial_schedule`.

    Source: the "poly" policy of Caffe; Chen et al. 2017 (DeepLab) use power 0.9.
    """

    steps: int
    peak: float
    end: float = 0.0
    power: float = 1.0

    def __post_init__(self) -> None:
        self._store(
            steps=checks.count(self.steps, "steps of polynomial"),
            peak=checks.number(self.peak, "peak of polynomial", least=0),
            end=checks.number(self.end, "end of polynomial", least=0),
            power=checks.number(self.power, "power of polynomial", least=0, above=True),
        )

    def equation(self, t: int) -> float:
        return self.end + (self.peak - self.end) * float((1 - t / self.steps) ** self.power)


@final
@dataclass(frozen=True, repr=False)
class cosine(Schedule):  # noqa: N801
    """The learning rate goes from `peak` to `end` on half a wave of the cosine.

        lr(t) = end + (peak - end) * (1 + cos(pi * t / steps)) / 2

    Args:
        steps: its length, a whole number of at least 1. From t = steps on, the lr is `end`.
        peak: the learning rate at step 0, finite and at least 0.
        end: the learning rate after the last step, finite and at least 0.

    Raises:
        ArgumentError, ArgumentTypeError: an argument is outside of its bounds.

    Example:
        >>> schedule = cosine(4, peak=1.0)
        >>> [round(schedule(step), 4) for step in range(6)]
        [1.0, 0.8536, 0.5, 0.1464, 0.0, 0.0]

    Differs from torch's `CosineAnnealingLR(T_max, eta_min)`, which rises again after `T_max`; from
    optax's `cosine_decay_schedule` and Keras's `CosineDecay`, whose `alpha` is end / peak.

    Source: Loshchilov & Hutter 2017 (SGDR), equation 5.
    """

    steps: int
    peak: float
    end: float = 0.0

    def __post_init__(self) -> None:
        self._store(
            steps=checks.count(self.steps, "steps of cosine"),
            peak=checks.number(self.peak, "peak of cosine", least=0),
            end=checks.number(self.end, "end of cosine", least=0),
        )

    def equation(self, t: int) -> float:
        return self.end + (self.peak - self.end) * (1 + cos(pi * t / self.steps)) / 2
