"""Is the learning rate, and the length of the run, right: told by replays beside the run."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.along import along
from ravine.diagnose.probes.stepping import stepping
from ravine.diagnose.program import Change
from ravine.diagnose.suspicion import Suspicion
from ravine.diagnose.treatments.steps import times_epochs, times_lr
from ravine.watch.finding import Finding

OVERSHOT = 0.5
"""Alpha of an update, see `probes.along`: 0 is the minimum of its batch's parabola, 1 as high behind."""
HARDLY_ANY = 30
"""Steps below which no learning rate makes up for those that were not made."""


def rate_checks(evidence: Evidence) -> Iterator[Suspicion]:
    """Yield other rates and lengths, each a suspicion that only its replay can confirm."""
    run = evidence.replayed()
    steps = evidence.probe(stepping)
    hardly_any = len(run.losses) < HARDLY_ANY
    beyond = evidence.probe(along).middle
    facts = {
        "lr": steps.lr,
        "update/weight": steps.update_ratio,
        "steps": len(run.losses),
        "alpha of the first updates": beyond,
    }
    if run.non_finite is not None:
        says = (
            f"the loss or a weight is not finite from step {run.non_finite} on, at lr {steps.lr:g}"
        )
    else:
        says = f"at lr {steps.lr:g} the training loss ends at {run.final:.3g}"
    if beyond > OVERSHOT:
        says += f"; the first updates end behind their own batch's minimum (alpha {beyond:.2g})"
    far = run.non_finite is not None or steps.update_ratio > 1
    yield Suspicion(
        Finding("lr-too-high", "critical", "high", says, evidence=facts),
        tuple(times_lr(f) for f in ((0.1, 0.01, 1e-3, 1e-4) if far else (0.1, 0.01))),
        weight=1.2 if run.non_finite or steps.update_ratio > 0.1 else 1.0,
    )
    if run.non_finite is None:
        yield Suspicion(
            Finding("lr-too-low", "warning", "high", says, evidence=facts),
            _higher(steps.update_ratio),
            weight=1.2 if steps.update_ratio < 1e-4 else 1.0,
        )
        yield Suspicion(
            Finding(
                "too-few-epochs",
                "warning",
                "high",
                f"{len(run.losses)} steps were made, and the loss was still falling",
                evidence=facts,
            ),
            (times_epochs(4.0), times_epochs(20.0)) if hardly_any else (times_epochs(4.0),),
            weight=1.5 if hardly_any else 1.2 if len(run.losses) < 200 else 0.9,
        )


def _higher(ratio: float) -> tuple[Change, ...]:
    """Return higher rates, first the one that brings norm(update) / norm(weight) near 3e-3."""
    if not ratio > 0:
        return times_lr(10.0), times_lr(100.0)
    fitting = [factor for factor in (10.0, 100.0, 1e3, 1e4) if factor * ratio < 1] or [10.0]
    fitting.sort(key=lambda factor: abs(math.log10(factor * ratio / 3e-3)))
    return tuple(times_lr(factor) for factor in fitting[:2])
