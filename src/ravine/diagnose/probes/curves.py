"""What the learning curves of the run say, and their noise. Cost: the run itself, once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.replay import Trace, settled

FEWEST = 5
"""Looks below which a curve has no shape."""


@dataclass(frozen=True)
class Curves:
    """Loss of both parts over the epochs.

    Attributes:
        best, best_epoch: the least validation loss, as the median of three looks, and its epoch.
        last: the validation loss at the end, as the median of three looks.
        noise: how much it moves from look to look beside its course.
        fell: by what share the training loss fell since the best epoch.
        epochs: how many there were.
        gap: quality on the training data minus quality on the validation data at the end.
    """

    best: float
    best_epoch: int
    last: float
    noise: float
    fell: float
    epochs: int
    gap: float

    @property
    def rise(self) -> float:
        """By what share of the best the validation loss rose since."""
        return (self.last - self.best) / abs(self.best) if self.best else 0.0


def curves(evidence: Evidence) -> Curves | None:
    """Take them from the run as it is; None without validation data or with too few looks."""
    return curves_of(evidence.replayed())


def curves_of(run: Trace) -> Curves | None:
    """Take them from a trace."""
    valid = run.valid_loss
    if run.non_finite is not None or len(valid) < FEWEST or not all(map(math.isfinite, valid)):
        return None
    padded = [valid[0], *valid, valid[-1]]
    smooth = [float(np.median(padded[k : k + 3])) for k in range(len(valid))]
    best = int(np.argmin(smooth))
    # Second differences of a smooth course are small: what is left is noise (variance 6 sigma^2).
    noise = float(np.median(np.abs(np.diff(valid, 2)))) / 0.6745 / 6**0.5
    before = run.train_loss[best]
    return Curves(
        best=smooth[best],
        best_epoch=run.epochs_seen[best],
        last=settled(valid),
        noise=noise,
        fell=(before - run.final) / abs(before) if before else 0.0,
        epochs=run.epochs_seen[-1],
        gap=run.final_quality - settled(run.valid_quality),
    )
