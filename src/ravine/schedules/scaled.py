"""A schedule times a factor: a run that went back, and a replay with another rate, use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, SupportsFloat, SupportsIndex

from ravine.schedules.base import Schedule

__all__ = ["Scaled"]


@dataclass(frozen=True, repr=False)
class Scaled(Schedule):
    """Another schedule times a factor; what is observed, saved and loaded is the other's.

    >>> from ravine.schedules import constant
    >>> Scaled(constant(0.1), 0.5)(3)
    0.05
    """

    schedule: Schedule
    factor: float

    @property
    def length(self) -> int | None:
        return self.schedule.length

    def equation(self, t: int) -> float:
        return self.factor * self.schedule(t)

    def observe(self, value: SupportsFloat, *, step: SupportsIndex | None = None) -> None:
        self.schedule.observe(value, step=step)

    def state_dict(self) -> dict[str, Any]:
        return self.schedule.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.schedule.load_state_dict(state)
