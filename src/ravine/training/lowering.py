"""The learning rate of a run that went back: lower by a factor, whatever sets it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ravine.schedules.scaled import Scaled

__all__ = ["FACTOR", "Lowered", "lower_schedules"]


FACTOR = 0.5
"""What the learning rate is multiplied with at every way back."""


@dataclass(frozen=True, repr=False)
class Lowered(Scaled):
    """Another schedule times a factor, written as the other alone.

    >>> from ravine.schedules import constant
    >>> lowered = Lowered(constant(0.1), 0.5)
    >>> lowered(3), lowered
    (0.05, constant(0.1))
    """

    def __repr__(self) -> str:  # a state is saved with what was written, and lowered when loaded
        return repr(self.schedule)


def lower_schedules(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Multiply what schedules say from now on with a factor; 1 for as they were written."""
    for group in optimizer.param_groups:
        schedule = group.get("schedule")
        if schedule is None:
            continue
        written = schedule.schedule if isinstance(schedule, Lowered) else schedule
        group["schedule"] = written if factor == 1 else Lowered(written, factor)
