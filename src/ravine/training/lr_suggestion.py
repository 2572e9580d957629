"""From the sweeps of a range test to a learning rate, or to the reason why there is none."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ravine.training.range_test import Sweep

__all__ = ["Suggestion", "suggest"]

REACHED = 2 / 3
"""The suggestion is where the loss has made this part of its largest fall. Half of it is as steady
from seed to seed (within a factor of 2), four fifths is nearer to the edge: measured on digits,
diabetes, wine, breast-cancer and text with Adam and SGD, see tests/test_find_lr.py."""

WINDOW = 7
"""Steps of the running median: a decade of 12 steps keeps its shape, three odd batches do not count."""

CLEAR = 2.0
"""How many times the noise of a step the fall must be. The smoothed median over three seeds moves by
about a third of that noise, and the largest of a sweep's fluctuations by about 0.6 of it."""

DISAGREE = 10.0
"""The ratio of the seeds' own suggestions from which on they do not say the same."""

MARGIN = 5
"""Steps at either end of the sweep: what happens there may belong to what was not swept."""


@dataclass(frozen=True)
class Suggestion:
    """What the sweeps say.

    Attributes:
        lr: the suggestion; None if the sweeps do not decide.
        reason: how it was found, or why there is none.
        edge: the learning rate from which on the loss rises; None if it never did.
        fall: the largest fall of the smoothed loss.
        noise: the scatter of one step's change, a standard deviation.
        seeds: each seed's own suggestion.
        changes: the smoothed change of the loss, median over the seeds, for each learning rate.
    """

    lr: float | None
    reason: str
    edge: float | None
    fall: float
    noise: float
    seeds: list[float]
    changes: list[float]


def suggest(lrs: Sequence[float], sweeps: Sequence[Sweep]) -> Suggestion:
    """Find the learning rate at which the loss has made two thirds of its largest fall.

        change(k) = running median over 7 steps of median over seeds of (loss(k) - start(k))
        lr = lrs[first k with -change(k) >= 2/3 max(-change)]

    where loss and start are of the same batch, by the weights of now and of the beginning. A seed
    that has diverged counts as an infinite loss.

    Args:
        lrs: learning rates, ascending.
        sweeps: one for each seed.
    """
    raw = _median([sweep.changes for sweep in sweeps])
    if len(raw) < 2 * MARGIN:
        reason = f"the loss blew up within {len(raw)} steps: lower start, or look at the task"
        return Suggestion(None, reason, None, 0.0, 0.0, [], raw)
    changes = smooth(raw)
    lowest = min(range(len(changes)), key=changes.__getitem__)
    fall = -changes[lowest]
    noise = _noise(sweeps, lowest)
    edge = _edge(lrs, raw, fall) if fall > 0 else None
    curves = [smooth(sweep.changes) for sweep in sweeps]
    # A seed that blew up before it fell has no suggestion of its own.
    own = [lrs[_reached(curve)] for curve in curves if curve and -min(curve) > fall / 2]
    place = _reached(changes)
    scale = statistics.median(abs(start) for sweep in sweeps for start in sweep.starts)
    late = place >= len(lrs) - 2 * MARGIN or changes[-1 - MARGIN] - changes[-1] > 0.2 * fall
    reason = ""
    if fall <= max(CLEAR * noise, 1e-5 * scale):
        reason = (
            f"the loss never fell clearly: by {fall:.3g} at most, where a step's noise is "
            f"{noise:.3g}; look at the task, or take larger batches or more seeds"
        )
    elif late and len(raw) == len(lrs):
        reason = f"the loss was still falling at the largest learning rate, {lrs[-1]:g}: raise stop"
    elif place < MARGIN:
        reason = f"the loss fell from the first steps on, at {lrs[0]:g}: lower start"
    elif own and max(own) > DISAGREE * min(own):
        reason = (
            f"the seeds do not agree: from {min(own):.2g} to {max(own):.2g}; "
            "take more seeds or larger batches"
        )
    lr = None if reason else float(f"{lrs[place]:.2g}")
    reason = reason or f"two thirds of the largest fall of the loss, {fall:.3g} from {scale:.3g}"
    return Suggestion(lr, reason, edge, fall, noise, own, changes)


def smooth(values: Sequence[float]) -> list[float]:
    """Return the running median; the window is shorter at the ends.

    >>> smooth([0, 0, 9, 0, 0, 0, 0, -1, -1, -1, -1, -1])[3:8]
    [0, 0, 0, 0, -1]
    """
    half = WINDOW // 2
    return [statistics.median(values[max(0, k - half) : k + half + 1]) for k in range(len(values))]


def _median(curves: Sequence[Sequence[float]]) -> list[float]:
    """Return the median over the curves, as long as it is finite: a curve that ended is infinite."""
    longest = max(map(len, curves))
    padded = [[*curve, *[math.inf] * (longest - len(curve))] for curve in curves]
    middle = [statistics.median_high(values) for values in zip(*padded, strict=True)]
    exact = [statistics.median(values) for values in zip(*padded, strict=True)]
    return [e for m, e in zip(middle, exact, strict=True) if math.isfinite(m)]


def _reached(changes: Sequence[float]) -> int:
    """Return the first place at which the part of the fall has been made."""
    wanted = max(REACHED * min(changes), min(changes))  # the lowest itself where none fell
    return next(k for k, change in enumerate(changes) if change <= wanted)


def _noise(sweeps: Sequence[Sweep], lowest: int) -> float:
    """Return the scatter of a step's change: a robust standard deviation.

    Each is compared with the mean of its neighbours, so that no trend counts. Where nothing has
    happened yet the batch is compared with itself, and what is left is dropout and rounding; near
    the lowest loss what differs is how much each batch gained. The larger counts.
    """
    scatter = []
    for part in (range(1, 2 * MARGIN), range(max(1, lowest - WINDOW), lowest + WINDOW + 1)):
        distances = [
            abs(changes[k] - (changes[k - 1] + changes[k + 1]) / 2)
            for changes in (sweep.changes for sweep in sweeps)
            for k in part
            if k + 1 < len(changes)
        ]
        # The difference from the mean of two has a variance of 1.5.
        scatter.append(1.4826 / 1.5**0.5 * statistics.median(distances) if distances else 0.0)
    return max(scatter)


def _edge(lrs: Sequence[float], raw: Sequence[float], fall: float) -> float | None:
    """Return the learning rate at which the last rise begins, if the loss gives up half of its fall."""
    lowest = min(raw)
    if raw[-1] < lowest + 0.5 * fall:
        return None
    k = max(k for k, change in enumerate(raw) if change <= lowest + 0.1 * fall)
    while k > 0 and raw[k - 1] < raw[k]:
        k -= 1
    return lrs[k]
