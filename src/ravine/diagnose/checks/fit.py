"""Does the model learn too much by heart, or too little."""

from __future__ import annotations

from collections.abc import Iterator

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.curves import Curves, curves
from ravine.diagnose.probes.learnable import learnable
from ravine.diagnose.suspicion import Suspicion
from ravine.diagnose.treatments.fit import MORE_DECAY, MORE_DROPOUT, STOP_EARLY
from ravine.diagnose.treatments.layers import HIDDEN
from ravine.diagnose.treatments.loss import and_also
from ravine.diagnose.treatments.steps import adam
from ravine.watch.finding import Finding, Severity

RISE = 0.05
"""Share of its minimum by which the validation loss is past it."""
NOISE = 4.0
"""The rise in units of the curve's own noise: a median of three looks against another."""
SHORT, TIMES = 0.07, 2.0
"""Quality by which a model falls short of a quick baseline, and how many times its error."""


def fit_checks(evidence: Evidence) -> Iterator[Suspicion]:
    """Yield what the learning curves and the baseline say."""
    seen = evidence.probe(curves)
    if seen is not None and _past(seen):
        yield _overfitting(seen)
    yield from _underfitting(evidence)


def _past(seen: Curves) -> bool:
    rises = seen.last - seen.best > NOISE * seen.noise and seen.rise > RISE
    return rises and seen.fell > 0.1 and seen.best_epoch <= 0.8 * seen.epochs


def _overfitting(seen: Curves) -> Suspicion:
    # A loss that rises while answers stay right is a matter of calibration, not of learning.
    severity: Severity = "warning" if seen.gap > 0.1 else "info"
    return Suspicion(
        Finding(
            "overfitting",
            severity,
            "high",
            f"the validation loss was least after epoch {seen.best_epoch} ({seen.best:.3g}) and "
            f"ends at {seen.last:.3g}, while the training loss fell by another {seen.fell:.0%}; "
            f"the quality on validation data is {seen.gap:.2f} lower",
            where="valid",
            evidence={
                "least": seen.best, "epoch": seen.best_epoch, "last": seen.last,
                "noise": seen.noise, "gap": seen.gap,
            },
        ),
        (STOP_EARLY, MORE_DECAY, MORE_DROPOUT),
        certain=True,
        weight=1.0,
        measure="valid/loss",
    )  # fmt: skip


def _underfitting(evidence: Evidence) -> Iterator[Suspicion]:
    run, reference = evidence.replayed(), evidence.probe(learnable)
    if reference is None or not run.complete or run.non_finite is not None:
        return
    reached = run.final_quality
    # What a baseline does on rows that it never saw, a model should do on rows that it did.
    far = reached < reference.quality - SHORT and 1 - reached > TIMES * (1 - reference.quality)
    if not far and reached >= reference.chance + 0.1:
        return
    if not reference.quality > reference.chance + 0.1:
        return
    yield Suspicion(
        Finding(
            "underfitting",
            "warning",
            "medium",
            f"on its training data the model reaches {reached:.3g}; a quick baseline reaches "
            f"{reference.quality:.3g} on rows that it was not fitted to",
            where="train",
            evidence={"reached": reached, "baseline": reference.quality},
        ),
        (adam(), adam(0.01), HIDDEN, and_also(HIDDEN, adam(0.01))),
        certain=True,
        weight=0.5,
        last_resort=True,
    )
