"""A finding that is not settled yet, with the remedies whose replay would settle it."""

from __future__ import annotations

from dataclasses import dataclass

from ravine.diagnose.program import Change
from ravine.diagnose.trials import Measure
from ravine.watch.finding import Finding


@dataclass(frozen=True)
class Suspicion:
    """What a check suspects.

    Attributes:
        finding: what would be found.
        remedies: what may mend it, cheapest first.
        certain: found whatever the replays say: it was measured directly. Otherwise it is a finding
            only if a remedy helps.
        weight: how likely it is the cause rather than another suspicion that the same replays
            support; 1 where nothing speaks for it but the replay.
        measure: what the remedies are judged by: "error" (see `trials.error_of`), "train/loss" or
            "valid/loss".
        last_resort: found only if no remedy of another suspicion helps.
    """

    finding: Finding
    remedies: tuple[Change, ...] = ()
    certain: bool = False
    weight: float = 1.0
    measure: Measure = "error"
    last_resort: bool = False
