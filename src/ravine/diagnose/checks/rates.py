"""Is the learning rate, and the length of the run, right: told by replays beside the run."""

from __future__ import annotations

from collections.abc import Iterator

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.finding import Finding
from ravine.diagnose.probes.stepping import stepping
from ravine.diagnose.suspicion import Suspicion
from ravine.diagnose.treatments.steps import times_epochs, times_lr


def rate_checks(evidence: Evidence) -> Iterator[Suspicion]:
    """Yield other rates and lengths, each a suspicion that only its replay can confirm."""
    run = evidence.replayed()
    steps = evidence.probe(stepping)
    facts = {"lr": steps.lr, "update/weight": steps.update_ratio, "steps": len(run.losses)}
    if run.non_finite is not None:
        says = (
            f"the loss or a weight is not finite from step {run.non_finite} on, at lr {steps.lr:g}"
        )
    else:
        says = f"at lr {steps.lr:g} the training loss ends at {run.final:.3g}"
    yield Suspicion(
        Finding("lr-too-high", "critical", "high", says, evidence=facts),
        (times_lr(0.1), times_lr(0.01)),
        weight=1.2 if run.non_finite or steps.update_ratio > 0.1 else 1.0,
    )
    if run.non_finite is None:
        yield Suspicion(
            Finding("lr-too-low", "warning", "high", says, evidence=facts),
            (times_lr(10.0), times_lr(100.0)),
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
            (times_epochs(4.0),),
            weight=1.2 if len(run.losses) < 200 else 0.9,
        )
