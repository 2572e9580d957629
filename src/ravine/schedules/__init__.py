"""Learning rates as pure functions of the step, joined by ``>>``, and the one that listens.

    >>> from ravine.schedules import cosine, warmup
    >>> schedule = warmup(2) >> cosine(4, peak=1.0)
    >>> [round(schedule(step), 3) for step in range(7)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]

Simplest first: `decays` (constant, exponential, step), `ramps` (linear, polynomial, cosine),
`joining` (warmup and ``>>``), `listening` (plateau). To write your own, see `Schedule`.
"""

from __future__ import annotations

import torch

from ravine.schedules.base import Schedule
from ravine.schedules.decays import constant, exponential, step
from ravine.schedules.joining import Joined, as_schedule, warmup
from ravine.schedules.listening import plateau
from ravine.schedules.ramps import cosine, linear, polynomial

SCHEDULES: dict[str, type[Schedule]] = {
    schedule.__name__: schedule
    for schedule in (
        constant,
        exponential,
        step,
        linear,
        polynomial,
        cosine,
        warmup,
        plateau,
    )
}
"""Every schedule by its name, for expressions and listings."""

# LambdaLR puts the schedule's fields into its own state, so a checkpoint may hold schedules. They
# are numbers only, so `torch.load` may read them back without `weights_only=False`.
torch.serialization.add_safe_globals([*SCHEDULES.values(), Joined])

__all__ = [
    "SCHEDULES",
    "Schedule",
    "as_schedule",
    "constant",
    "cosine",
    "exponential",
    "linear",
    "plateau",
    "polynomial",
    "step",
    "warmup",
]
