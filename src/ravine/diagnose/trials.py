"""Whether a remedy helps: replays with and without it, with the same seeds and order."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ravine.diagnose.evidence import AS_IT_IS, Evidence
from ravine.diagnose.finding import Trial
from ravine.diagnose.program import Change
from ravine.diagnose.replay import Trace

ROOM = 0.05
"""Improvements of error smaller than this share of the whole are not called a repair."""


def error_of(trace: Trace) -> float:
    """Return 1 - accuracy or 1 - R2 at the end, on validation data where there is any, in [0, 2].

    Where there is validation data the worse of both parts counts: a remedy that only learns the
    training data by heart repairs nothing.
    """
    if trace.non_finite is not None:
        return 2.0
    found = []
    for values in (trace.train_quality, trace.valid_quality):
        last = [value for value in values[-3:] if not math.isnan(value)]
        if last:
            found.append(1 - sorted(last)[len(last) // 2])
    return min(max(found), 2.0) if found else 2.0


def helps(before: Sequence[float], after: Sequence[float]) -> bool:
    """Return whether errors fell in every seed, and together by a share that matters.

    >>> helps([0.5, 0.4], [0.1, 0.2]), helps([0.5, 0.4], [0.1, 0.5]), helps([0.04], [0.01])
    (True, False, False)
    """
    pairs = list(zip(before, after, strict=True))
    if any(b <= a for b, a in pairs):
        return False
    gain = sum(b - a for b, a in pairs) / len(pairs)
    return gain >= ROOM and gain >= 0.25 * sum(before) / len(before)


def trial(evidence: Evidence, remedy: Change, seeds: Sequence[int]) -> Trial:
    """Replay with and without a remedy over seeds."""
    runs = [evidence.replayed(change, seed) for seed in seeds for change in (AS_IT_IS, remedy)]
    if not all(run.complete for run in runs):  # the time was up: nothing can be said
        return Trial(remedy.says, (), (), "not finished in time", False)
    before = tuple(error_of(evidence.replayed(AS_IT_IS, seed)) for seed in seeds)
    after = tuple(error_of(evidence.replayed(remedy, seed)) for seed in seeds)
    measure = "1 - R2" if evidence.kind == "numbers" else "1 - accuracy"
    return Trial(remedy.says, before, after, measure, helps(before, after))
