"""What is known of a program so far: measurements, each made once and when first asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from ravine.diagnose.program import Change, Fresh, Program
from ravine.diagnose.quality import Kind, chance, kind_of
from ravine.diagnose.replay import Trace, replay, samples_of
from ravine.tasks.seeding import seeded

T = TypeVar("T")

AS_IT_IS = Change()


@dataclass
class Evidence:
    """Measurements of one program.

    Attributes:
        program: makes the program afresh.
        deadline: of time.perf_counter; replays end there.
    """

    program: Program
    deadline: float
    _made: dict[Any, Any] = field(default_factory=dict)

    def probe(self, measure: Callable[[Evidence], T]) -> T:
        """Return what a probe measures; it is called once."""
        if measure not in self._made:
            with seeded(self.program.seed):
                self._made[measure] = measure(self)
        found: T = self._made[measure]
        return found

    def known(self, measure: Callable[[Evidence], T]) -> T | None:
        """Return what a probe measured, or None if it was not called."""
        found: T | None = self._made.get(measure)
        return found

    def fresh(self, change: Change = AS_IT_IS, seed: int | None = None) -> Fresh:
        """Return the program, made anew."""
        return self.program.fresh(change, seed)

    def replayed(self, change: Change = AS_IT_IS, seed: int | None = None) -> Trace:
        """Return the trace of a whole run with a change; the same is run once."""
        seed = self.program.seed if seed is None else seed
        key = "replay", change, seed
        if key not in self._made:
            trace = replay(self.fresh(change, seed), deadline=self.deadline)
            self._made[key] = trace.until_best() if change.best else trace
        found: Trace = self._made[key]
        return found

    def changes(self) -> list[Change]:
        """Return the changes that were replayed with the program's own seed."""
        keys = [key for key in self._made if isinstance(key, tuple) and key[0] == "replay"]
        return [key[1] for key in keys if key[1] != AS_IT_IS and key[2] == self.program.seed]

    def remember(self, change: Change, trace: Trace) -> None:
        """Keep the trace of a replay that a probe made of the program's own seed."""
        self._made.setdefault(("replay", change, self.program.seed), trace)

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.perf_counter()

    @property
    def sample(self) -> tuple[Tensor, Tensor]:
        """The first rows of the training data."""
        return self._samples[0]

    @property
    def valid_sample(self) -> tuple[Tensor, Tensor] | None:
        """The first rows of the validation data, or None."""
        return self._samples[1] if len(self._samples) > 1 else None

    @property
    def kind(self) -> Kind:
        """What the targets are."""
        return kind_of(self.sample[1])

    @property
    def chance(self) -> float:
        """The quality of the best constant answer."""
        return chance(self.sample[1])

    @property
    def _samples(self) -> list[tuple[Tensor, Tensor]]:
        return self.probe(_samples)


def _samples(evidence: Evidence) -> list[tuple[Tensor, Tensor]]:
    return samples_of(evidence.fresh(), rows=2048)
