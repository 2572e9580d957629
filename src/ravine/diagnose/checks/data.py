"""Is the data what it is taken for: leaks, parts that differ, labels that are wrong or noise."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.labels import labels
from ravine.diagnose.probes.leak import leak
from ravine.diagnose.probes.learnable import CERTAIN, Learnable, learnable
from ravine.diagnose.probes.shift import shift
from ravine.diagnose.replay import settled
from ravine.diagnose.suspicion import Suspicion
from ravine.diagnose.treatments.data import SPLIT_ANEW, STANDARDISE_APART
from ravine.diagnose.treatments.fit import AGREEING
from ravine.watch.finding import Finding, Severity

LEAKED = 0.05
"""Share of the validation rows beyond the repeats of the training data."""
APART, SIGMAS = 0.65, 5.0
"""Area under the curve of a two-sample classifier, and standard errors: a real and a sure shift."""
EVEN = 0.7
"""Share of wrong labels where a baseline is sure, over that of all: .87 to .90 where labels were
changed at random, .57 for three clusters that overlap."""
SURELY = 2.0
"""Standard errors: of 240 rows of two clusters that overlap, by chance up to .82 times as many."""
GAP = 0.1
"""Quality lost from training to validation data before a shift of the data is called harmful."""


def data_checks(evidence: Evidence) -> Iterator[Suspicion]:
    """Yield what the data shows by itself, most of it without the model."""
    yield from _leak(evidence)
    yield from _unlearnable(evidence)
    yield from _labels(evidence)
    yield from _mismatch(evidence)


def _leak(evidence: Evidence) -> Iterator[Suspicion]:
    seen = evidence.probe(leak)
    excess = seen.shared - seen.expected
    if excess > LEAKED and excess * seen.rows >= 5:
        yield Suspicion(
            Finding(
                "data-leak",
                "warning",
                "high",
                f"{seen.shared:.0%} of the {seen.rows} validation rows are training rows "
                f"({seen.expected:.0%} of the training rows are there twice): the validation "
                "measures what was learned by heart",
                where="valid",
                evidence={"shared": seen.shared, "repeats": seen.expected},
            ),
            certain=True,
            weight=3.0,
        )
    if seen.column is not None and seen.correlation > 0.995 and seen.others < 0.9:
        yield Suspicion(
            Finding(
                "data-leak",
                "warning",
                "medium",
                f"column {seen.column} of the inputs is the target (correlation "
                f"{seen.correlation:.4f}, the next column {seen.others:.2f}): is it known when the "
                "model is used?",
                where=f"inputs[:, {seen.column}]",
                evidence={"correlation": seen.correlation, "next": seen.others},
            ),
            certain=True,
            weight=3.0,
        )


def _unlearnable(evidence: Evidence) -> Iterator[Suspicion]:
    seen = evidence.probe(learnable)
    if seen is None or len(seen.targets) < 100 or seen.sigmas > CERTAIN:
        return
    run = evidence.replayed()
    if not run.complete or run.non_finite is not None:
        return
    rows = evidence.valid_sample or evidence.sample
    reached = settled(run.valid_quality or run.train_quality)
    noise = math.sqrt(seen.chance * (1 - seen.chance) / len(rows[1])) if seen.labels else 0.02
    if reached - seen.chance > 2.5 * noise + 0.01:
        return
    yield Suspicion(
        Finding(
            "unlearnable-data",
            "warning",
            "medium",
            f"neither the model ({reached:.3g}) nor a baseline ({seen.quality:.3g} in "
            f"cross-validation, {seen.sigmas:.1f} standard errors) does better than answering "
            f"without looking ({seen.chance:.3g})",
            where="train",
            evidence={"baseline": seen.quality, "chance": seen.chance, "sigmas": seen.sigmas},
        ),
        certain=True,
        weight=4.0,
        last_resort=True,
    )


def _labels(evidence: Evidence) -> Iterator[Suspicion]:
    told, seen = evidence.probe(labels), evidence.probe(learnable)
    if told is None or seen is None or len(seen.targets) < 100:
        return
    # Better than chance by more than a third of the way, else the baseline does not know either.
    known = (seen.quality - seen.chance) / (1 - seen.chance) if seen.chance < 1 else 0.0
    if told.wrong < 0.08 or told.even < EVEN or told.wrong_where_sure < 0.05 or known < 0.35:
        return
    valid = settled(evidence.replayed().valid_quality)
    # Validation labels that it tells better than those of training are the surest sign.
    clean = evidence.valid_sample is not None and _clean(seen, len(evidence.valid_sample[1]))
    if not clean and told.beyond(EVEN) < SURELY:
        return
    if not clean and 1 - valid < 0.5 * told.wrong:
        return  # the model tells what the baseline denies: the labels are right
    yield Suspicion(
        Finding(
            "labels-corrupted",
            "warning",
            "high" if clean else "medium",
            f"a baseline denies {told.wrong:.0%} of the labels in cross-validation, and as many "
            f"({told.wrong_where_sure:.0%}) where it is surest; classes that overlap are denied "
            "where it is unsure",
            where="train",
            evidence={"denied": told.wrong, "denied where sure": told.wrong_where_sure},
        ),
        (AGREEING,),
        certain=True,
        weight=2.0,
    )


def _clean(seen: Learnable, rows: int) -> bool:
    """Whether a baseline tells the validation labels far better than those of its own kind of rows."""
    noise = math.sqrt(seen.quality * (1 - seen.quality) / max(1, rows))
    return not math.isnan(seen.on_valid) and seen.on_valid - seen.quality > 0.1 + 2 * noise


def _mismatch(evidence: Evidence) -> Iterator[Suspicion]:
    run = evidence.replayed()
    lost = settled(run.train_quality) - settled(run.valid_quality)
    harmful: Severity = "warning" if lost > GAP else "info"
    seen = evidence.probe(shift)
    if seen is not None and seen.area > APART and seen.sigmas > SIGMAS:
        yield _differ(
            f"a forest tells training from validation rows with an area of {seen.area:.2f} under "
            f"the curve ({seen.sigmas:.0f} standard errors); column {seen.column} differs most",
            harmful,
            {"area": seen.area, "sigmas": seen.sigmas, "quality lost": lost},
            f"inputs, column {seen.column}",
        )
    elif seen is not None and seen.labels > 0.2 and seen.label_sigmas > SIGMAS:
        yield _differ(
            f"the targets of training and validation differ by {seen.labels:.0%} of the rows",
            harmful,
            {"distance": seen.labels, "sigmas": seen.label_sigmas, "quality lost": lost},
            "targets",
        )
    else:
        known = evidence.probe(learnable)
        if known is not None and known.quality - known.on_valid > 0.2 and known.sigmas > SIGMAS:
            yield _differ(
                f"a baseline reaches {known.quality:.2f} in cross-validation on the training rows "
                f"and {known.on_valid:.2f} on the validation rows: what they ask for differs",
                harmful,
                {"cross-validated": known.quality, "on valid": known.on_valid},
                "targets",
            )


def _differ(says: str, severity: Severity, facts: dict[str, float], where: str) -> Suspicion:
    return Suspicion(
        Finding("train-valid-mismatch", severity, "high", says, where=where, evidence=dict(facts)),
        (STANDARDISE_APART, SPLIT_ANEW),
        certain=True,
        weight=3.0,
    )
