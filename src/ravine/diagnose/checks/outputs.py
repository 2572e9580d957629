"""Does the output depend on the input, and is it the same in training and evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.dependence import dependence
from ravine.diagnose.probes.modes import modes
from ravine.diagnose.probes.run import run
from ravine.diagnose.suspicion import Suspicion
from ravine.diagnose.treatments.norms import AVERAGED, GROUPS
from ravine.diagnose.treatments.steps import batches_of
from ravine.watch.finding import Finding

BLIND = 1e-6
"""Outputs that differ by less than this share of their size do not depend on the row."""
LOST = 0.2
"""Quality lost by evaluation mode: a fifth of the whole is beyond what running averages lag."""
FEW_ROWS = 8
"""A batch of which mean and variance are mostly noise."""


def output_checks(evidence: Evidence) -> Iterator[Suspicion]:
    """Yield a model that is blind to its inputs, and modes that differ."""
    if evidence.probe(run).trace.non_finite is None:
        yield from _blind(evidence)
        yield from _modes(evidence)


def _blind(evidence: Evidence) -> Iterator[Suspicion]:
    seen = evidence.probe(dependence)
    if seen.rows < 2 or max(seen.first, seen.last) > BLIND:
        return
    yield Suspicion(
        Finding(
            "input-ignored",
            "critical",
            "high",
            f"{seen.rows} different rows get the same output, before the first step and after the "
            "last: the inputs are lost on the way",
            where="model",
            evidence={"first": seen.first, "last": seen.last},
        ),
        certain=True,
    )


def _modes(evidence: Evidence) -> Iterator[Suspicion]:
    seen = evidence.probe(modes)
    if not seen.norms or not seen.lost > LOST:
        return
    size = evidence.fresh().train.size
    few = isinstance(size, int) and size <= FEW_ROWS
    yield Suspicion(
        Finding(
            "batch-too-small" if few else "train-eval-gap",
            "critical",
            "high",
            f"on the same rows the trained model reaches {seen.train:.3g} with the statistics of "
            f"the batch of {size} rows and {seen.evaluation:.3g} with the running ones",
            where=seen.norms[0],
            evidence={"train mode": seen.train, "evaluation mode": seen.evaluation},
        ),
        (batches_of(32), AVERAGED, GROUPS),
        certain=True,
        weight=1.2,
    )
