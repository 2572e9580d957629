"""Is the model held back by dropout or penalties."""

from __future__ import annotations

from collections.abc import Iterator

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.dropout import held
from ravine.diagnose.program import Change
from ravine.diagnose.suspicion import Suspicion
from ravine.diagnose.treatments.fit import FREE, NO_DROPOUT, NO_PENALTY
from ravine.watch.finding import Finding


def regularisation_checks(evidence: Evidence) -> Iterator[Suspicion]:
    """Yield dropout on the output, and what training without dropout and penalties would confirm."""
    seen = evidence.probe(held)
    if seen.after_the_last:
        yield Suspicion(
            Finding(
                "dropout-misplaced",
                "warning",
                "high",
                "dropout acts on the output itself: no layer with weights comes after "
                + ", ".join(seen.after_the_last),
                where=seen.after_the_last[0],
                evidence={"p": seen.dropout},
            ),
            (NO_DROPOUT,),
            certain=True,
            weight=5.0,
        )
    elif seen.dropout > 0:
        yield _held(f"dropout drops {seen.dropout:.0%} of the values", seen.dropout >= 0.5, "p",
                    seen.dropout, NO_DROPOUT)  # fmt: skip
    if seen.penalty > 0:
        yield _held(f"{seen.which} is {seen.penalty:g}", seen.penalty >= 0.1, seen.which,
                    seen.penalty, NO_PENALTY)  # fmt: skip
    if evidence.fresh().task.regularize:
        yield _held("the task is regularised", False, "parts",
                    len(evidence.fresh().task.regularize), FREE)  # fmt: skip


def _held(says: str, much: bool, name: str, value: float, remedy: Change) -> Suspicion:
    return Suspicion(
        Finding(
            "over-regularised", "warning", "high",
            f"{says}, and training without it learns clearly more", evidence={name: value},
        ),
        (remedy,),
        weight=1.6 if much else 1.2,
    )  # fmt: skip
