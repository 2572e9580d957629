"""Programs in which nothing is wrong, though some look as if: no finding is right on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ravine
from cases.measures import Measure, accuracy
from cases.program import Program, trained

HEALTHY: dict[str, Control] = {}
"""Every healthy program by its name."""


@dataclass(frozen=True)
class Control:
    """A healthy program.

    Attributes:
        name, task: what it is, and its function of a seed.
        measure: a number of the trained program, more is better.
        least: what it reaches, at seeds 0, 1 and 2: as much as a good program of its kind does.
        looks_like: the finding that it must not be taken for, if one suggests itself.
    """

    name: str
    task: Callable[[int], ravine.Task]
    measure: Measure
    least: float
    looks_like: str

    def score(self, seed: int) -> float:
        """Train and return the measure."""
        program: Program = trained(self.task, seed)
        return self.measure(program)


def healthy(
    name: str,
    *,
    least: float,
    measure: Measure = accuracy(),  # noqa: B008
    looks_like: str = "",
) -> Callable[[Any], Any]:
    """Enter a function of a seed into the table of healthy programs."""

    def enter(function: Any) -> Any:
        assert name not in HEALTHY, name
        HEALTHY[name] = Control(name, function, measure, least, looks_like)
        return function

    return enter
