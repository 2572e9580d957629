"""Does the loss ask for what the targets say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.learnable import Learnable, learnable
from ravine.diagnose.probes.loss_kind import loss_kind
from ravine.diagnose.probes.pull import pull
from ravine.diagnose.program import Change
from ravine.diagnose.suspicion import Suspicion
from ravine.diagnose.treatments.loss import (
    BINARY,
    CROSS_ENTROPY,
    NEGATE,
    RESHAPE,
    SQUARES,
    and_also,
    as_classes,
)
from ravine.diagnose.treatments.steps import adam
from ravine.watch.finding import Finding

FEW_CLASSES = 20


def loss_checks(evidence: Evidence) -> Iterator[Suspicion]:
    """Yield what the loss alone shows, then what it shows beside the targets."""
    seen, loss = evidence.probe(pull), evidence.probe(loss_kind)
    output, targets = seen.shapes
    facts = {"loss": loss.name, "output": output, "targets": targets}
    if not seen.output_matters:
        yield _wrong(
            f"the loss does not change with the output: it is constant for outputs {output} and "
            f"targets {targets}",
            facts,
            (as_classes(seen.classes),) if seen.classes > 1 else (RESHAPE,),
        )
    elif seen.rows_matter is False:
        yield _wrong(
            "the loss does not change when the targets change places: outputs "
            f"{output} and targets {targets} are paired all with all",
            facts,
            (RESHAPE,),
        )
    elif seen.away > 0.9 or (loss.factor < 0 and loss.name != "unknown"):
        how = (
            f"the loss is the negative of {loss.name}"
            if loss.factor < 0
            else f"the loss pulls {seen.away:.0%} of the outputs away from their target"
        )
        yield Suspicion(
            Finding(
                "gradient-sign-flipped", "critical", "high", f"training climbs: {how}",
                evidence=facts,
            ),
            (NEGATE,),
            certain=True,
        )  # fmt: skip
    elif seen.classes > 1 and seen.toward < 0.5 and output[-1] >= seen.classes:
        yield _wrong(
            f"targets are classes, and the loss raises the output of the right class above the "
            f"others in {seen.toward:.0%} of the rows",
            facts,
            (CROSS_ENTROPY,),
        )
    elif evidence.kind == "classes" and seen.classes > 2 and output[-1] == 1 and len(output) == 2:
        yield _wrong(
            f"targets are {seen.classes} classes, and there is one output",
            facts,
            (as_classes(seen.classes),),
        )
    elif loss.name in ("mae", "smooth_l1") and _zeros_and_ones(evidence):
        fits = BINARY if evidence.kind == "binary" else CROSS_ENTROPY
        yield _wrong(
            f"targets are 0 and 1, and {loss.name} is least where the more frequent one is "
            "always answered",
            facts,
            (SQUARES, fits),
            certain=loss.name == "mae",
        )
    elif evidence.kind == "numbers":
        yield from _named_numbers(evidence)


def _zeros_and_ones(evidence: Evidence) -> bool:
    """Whether targets are 0 and 1; at -1 and 1 a hinge loss has the values of an absolute one."""
    return evidence.kind in ("binary", "one-hot") and bool((evidence.sample[1] >= 0).all())


def _named_numbers(evidence: Evidence) -> Iterator[Suspicion]:
    """Yield targets that are the numbers of classes: neighbours are no more alike than others."""
    values = torch.unique(evidence.sample[1])
    if not 3 <= len(values) <= FEW_CLASSES or evidence.sample[1].numel() < 10 * len(values):
        return
    if values.tolist() != list(range(len(values))):
        return
    seen = evidence.probe(learnable)
    told = _as_names(evidence)
    if seen is None or told is None:
        return
    rounded = float((np.rint(seen.predicted) == seen.targets).mean())
    if told - rounded > 0.2:
        yield _wrong(
            f"targets are the whole numbers 0 to {len(values) - 1}; taken for classes a baseline "
            f"tells {told:.0%} of them, taken for amounts {rounded:.0%}: they are names",
            {"as classes": told, "as amounts": rounded},
            (as_classes(len(values)),),
        )


def _as_names(evidence: Evidence) -> float | None:
    from ravine.diagnose.probes.arrays import Arrays, arrays
    from ravine.diagnose.probes.learnable import learned

    data = evidence.probe(arrays)
    if data is None:
        return None
    seen: Learnable | None = learned(Arrays(data.inputs, data.targets.astype(int), True))
    return None if seen is None else seen.quality


def _wrong(
    says: str, facts: dict[str, Any], remedies: tuple[Change, ...], certain: bool = True
) -> Suspicion:
    return Suspicion(
        Finding("wrong-loss", "critical", "high", says, evidence=facts),
        # A rate that was chosen for another loss may fit neither.
        (*remedies, and_also(remedies[0], adam(0.01))),
        certain=certain,
        weight=1.2,
    )
