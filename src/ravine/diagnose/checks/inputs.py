"""Is the data of a size that training can take."""

from __future__ import annotations

from collections.abc import Iterator

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.inputs import scales
from ravine.diagnose.suspicion import Suspicion
from ravine.diagnose.treatments.data import (
    STANDARDISE_BOTH,
    STANDARDISE_INPUTS,
    STANDARDISE_TARGETS,
)
from ravine.watch.finding import Finding


def input_checks(evidence: Evidence) -> Iterator[Suspicion]:
    """Yield features and targets whose scale is far from one; a replay has to show that it matters."""
    seen = evidence.probe(scales)
    if not seen.discrete and (seen.spread[0] > 3 or seen.offset > 3 or 0 < seen.spread[0] < 0.1):
        yield Suspicion(
            Finding(
                "unscaled-inputs",
                "warning",
                "high",
                f"features have deviations from {seen.spread[1]:.3g} to {seen.spread[0]:.3g} and "
                f"means up to {seen.offset:.3g}; standardised ones have 1 and 0",
                evidence={"deviations": seen.spread, "largest mean": seen.offset},
            ),
            (STANDARDISE_INPUTS, STANDARDISE_BOTH),
            weight=1.5,
        )
    if seen.target_spread > 10 or seen.target_offset > 10:
        yield Suspicion(
            Finding(
                "unscaled-targets",
                "warning",
                "high",
                f"targets have deviation {seen.target_spread:.3g} and mean "
                f"{seen.target_offset:.3g}; a model begins near 0 and takes small steps",
                evidence={"deviation": seen.target_spread, "mean": seen.target_offset},
            ),
            (STANDARDISE_TARGETS, STANDARDISE_BOTH),
            weight=1.5,
        )
