"""The learning rate of a run that went back: lower by a factor, whatever sets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, SupportsFloat, SupportsIndex

import torch

from ravine.schedules import Schedule

__all__ = ["FACTOR", "Lowered", "lower_schedules"]


FACTOR = 0.5
"""What the learning rate is multiplied with at every way back."""


@dataclass(frozen=True, repr=False)
class Lowered(Schedule):
    """Another schedule times a factor.

    >>> from ravine.schedules import constant
    >>> Lowered(constant(0.1), 0.5)(3)
    0.05
    """

    schedule: Schedule
    factor: float

    @property
    def length(self) -> int | None:
        return self.schedule.length

    def equation(self, t: int) -> float:
        return self.factor * self.schedule(t)

    def __repr__(self) -> str:
        return repr(
            self.schedule
        )  # a state is saved with what was written, and lowered when loaded

    def observe(self, value: SupportsFloat, *, step: SupportsIndex | None = None) -> None:
        self.schedule.observe(value, step=step)

    def state_dict(self) -> dict[str, Any]:
        return self.schedule.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.schedule.load_state_dict(state)


def lower_schedules(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Multiply what schedules say from now on with a factor; 1 for as they were written."""
    for group in optimizer.param_groups:
        schedule = group.get("schedule")
        if schedule is None:
            continue
        written = schedule.schedule if isinstance(schedule, Lowered) else schedule
        group["schedule"] = written if factor == 1 else Lowered(written, factor)
