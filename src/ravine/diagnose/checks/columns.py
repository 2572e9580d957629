"""Do the columns tell anything, and are all classes there. Infos: training works all the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.columns import columns
from ravine.diagnose.suspicion import Suspicion
from ravine.watch.finding import Finding

RARE = 0.02
"""Share of the rarest class below which an accuracy hardly sees it."""


def column_checks(evidence: Evidence) -> Iterator[Suspicion]:
    """Yield columns that never vary or repeat another, and a class that hardly occurs."""
    seen = evidence.probe(columns)
    useless = len(seen.constant) + len(seen.repeated)
    if useless:
        parts = []
        if seen.constant:
            parts.append(f"{len(seen.constant)} never vary ({_few(seen.constant)})")
        if seen.repeated:
            pairs = [f"{later} is {first}" for first, later in seen.repeated]
            parts.append(f"{len(seen.repeated)} repeat another ({_few(pairs)})")
        yield Suspicion(
            Finding(
                "uninformative-features",
                "info",
                "high",
                f"of {seen.columns} columns " + ", and ".join(parts),
                where="inputs",
                evidence={"constant": seen.constant, "repeated": seen.repeated},
            ),
            certain=True,
        )
    total = sum(seen.classes)
    if len(seen.classes) > 1 and seen.classes[-1] < RARE * total and len(seen.classes) * RARE < 1:
        yield Suspicion(
            Finding(
                "label-imbalance",
                "info",
                "high",
                f"the rarest of {len(seen.classes)} classes has {seen.classes[-1]} of {total} rows, "
                f"the most frequent {seen.classes[0]}: accuracy hardly sees the rare one",
                where="targets",
                evidence={"rows of a class": seen.classes},
            ),
            certain=True,
        )


def _few(things: Sequence[object]) -> str:
    listed = [str(thing) for thing in things]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
