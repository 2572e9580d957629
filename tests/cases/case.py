"""What a case is: a program with a known fault, its mend, and how the difference is measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import ravine
from cases.measures import Measure, accuracy
from cases.program import Program, trained

CASES: dict[str, Case] = {}
"""Every case by its name."""


@dataclass(frozen=True)
class Case:
    """A program with a fault.

    Attributes:
        name: the source's, or the fault and the architecture.
        function: of (seed, mended), returns a Task.
        roots: finding names; each, named first, is right. The truest comes first.
        source: where the case was published, "made" otherwise.
        also: names that hold too (a symptom, or a second fault); right to report, wrong to put first.
        measure: a number of the trained program, more is better.
        margin: by how much the mended program is better at least.
        unsure: why experts could argue about the roots; empty where they could not.
    """

    name: str
    function: Callable[[int, bool], ravine.Task]
    roots: tuple[str, ...]
    source: str
    also: tuple[str, ...]
    measure: Measure
    margin: float
    unsure: str

    @property
    def task(self) -> Callable[[int], ravine.Task]:
        """The function of a seed that returns the faulty task."""
        return partial(self.function, mended=False)

    @property
    def mended(self) -> Callable[[int], ravine.Task]:
        """The function of a seed that returns the mended task."""
        return partial(self.function, mended=True)

    def scores(self, seed: int) -> tuple[float, float]:
        """Train both and return their measures; what is not finite counts as minus infinity."""
        return self._score(self.task, seed), self._score(self.mended, seed)

    def _score(self, function: Callable[[int], ravine.Task], seed: int) -> float:
        program: Program = trained(function, seed)
        score = self.measure(program)
        return -math.inf if math.isnan(score) else score


def case(
    name: str,
    *roots: str,
    source: str = "made",
    also: tuple[str, ...] = (),
    measure: Measure = accuracy(),  # noqa: B008
    margin: float = 0.1,
    unsure: str = "",
) -> Callable[[Any], Any]:
    """Enter a function of (seed, mended) into the table of cases."""

    def enter(function: Any) -> Any:
        assert name not in CASES, name
        CASES[name] = Case(name, function, roots, source, also, measure, margin, unsure)
        return function

    return enter
