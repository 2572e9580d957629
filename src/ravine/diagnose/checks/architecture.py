"""Are the first weights and the layers such that the model can learn."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.affine import affine
from ravine.diagnose.probes.baseline import baseline
from ravine.diagnose.probes.learnable import learnable
from ravine.diagnose.probes.one_batch import one_batch
from ravine.diagnose.probes.symmetry import symmetry
from ravine.diagnose.probes.units import units
from ravine.diagnose.program import Change
from ravine.diagnose.suspicion import Suspicion
from ravine.diagnose.treatments.init import RECURRENT, RESET
from ravine.diagnose.treatments.layers import INSERT_RELU, NORMALISE, widen
from ravine.diagnose.treatments.model import HE
from ravine.watch.finding import Finding


def architecture_checks(evidence: Evidence) -> Iterator[Suspicion]:
    """Yield first weights that cannot learn, and layers that cannot tell the data."""
    yield from _symmetric(evidence)
    yield from _start(evidence)
    yield from _linear(evidence)
    yield from _small(evidence)


def _symmetric(evidence: Evidence) -> Iterator[Suspicion]:
    seen = evidence.probe(symmetry)
    if not seen.first:
        return
    told = "and still are after the run" if seen.last else "and differ after the run"
    yield Suspicion(
        Finding(
            "symmetric-init",
            "critical",
            "high",
            f"all units of {', '.join(seen.first[:3])} begin with the same weights, {told}",
            where=seen.first[0],
            evidence={"first": seen.first, "last": seen.last},
        ),
        (RESET, HE),
        weight=2.0 if seen.last else 1.3,
    )


def _start(evidence: Evidence) -> Iterator[Suspicion]:
    seen, signal = evidence.probe(baseline), evidence.probe(units).first
    sizes = list(signal.signal.values())
    growth = sizes[-1] / sizes[0] if len(sizes) > 1 and sizes[0] > 0 else 1.0
    high = seen.constant > 0 and seen.first > 2 * seen.constant
    # Units that are dead or flat from the start have a finding of their own.
    lost = any(a.flat > 0.9 for a in signal.activations)
    shrunk = growth < 0.03 and not lost
    if not (high or shrunk or growth > 30 or signal.output > 30):
        return
    yield Suspicion(
        Finding(
            "bad-init",
            "critical",
            "high",
            f"before the first step the loss is {seen.first:.3g} (the best constant answer has "
            f"{seen.constant:.3g}), the output's deviation {signal.output:.2g}, and the signal's "
            f"grows by {growth:.2g} from the first layer to the last",
            evidence={"first": seen.first, "constant": seen.constant, "signal": signal.signal},
        ),
        (RESET, HE, RECURRENT, NORMALISE),
        weight=1.2 if growth > 30 or growth < 0.03 or seen.first > 10 * seen.constant else 1.0,
    )


def _linear(evidence: Evidence) -> Iterator[Suspicion]:
    seen = evidence.probe(affine)
    if not seen.affine or seen.layers < 2:
        return
    yield Suspicion(
        Finding(
            "missing-nonlinearity",
            "critical",
            "high",
            f"the {seen.layers} layers are one affine map together: mixtures of rows give mixtures "
            f"of outputs, to {seen.error:.0e} of their deviation",
            evidence={"layers": seen.layers, "error": seen.error},
        ),
        (INSERT_RELU,),
        weight=1.5,
    )


def _small(evidence: Evidence) -> Iterator[Suspicion]:
    run = evidence.replayed()
    if run.non_finite is not None or not _more_is_there(evidence) or not _runs(evidence, widen(8)):
        return
    seen = evidence.probe(one_batch)
    weights = sum(p.numel() for p in evidence.fresh().model.parameters())
    yield Suspicion(
        Finding(
            "model-too-small",
            "warning",
            "high",
            f"{weights} weights reach a quality of {run.final_quality:.3g} on the training data; "
            f"alone with {seen.rows} rows they reach {seen.after:.3g}",
            evidence={"weights": weights, "one batch": seen.after},
        ),
        (widen(8),),
        weight=0.9,
    )


def _more_is_there(evidence: Evidence) -> bool:
    """Return whether something else learns more of the data than the program did of its own rows.

    Where no quick baseline can be made, as of several targets, less than half of the way counts: a
    narrow place may be on purpose, and more weights always reproduce more.
    """
    reached, known = evidence.replayed().final_quality, evidence.probe(learnable)
    if known is not None:
        return not reached >= known.quality
    return not reached >= (1 + evidence.chance) / 2


def _runs(evidence: Evidence, change: Change) -> bool:
    """Return whether the changed model answers in the shape of the model as it is."""
    inputs = evidence.sample[0][:4]
    with torch.no_grad():
        plain = evidence.fresh().model.eval()(inputs)
        try:
            changed = evidence.fresh(change).model.eval()(inputs)
        except (RuntimeError, ValueError, AssertionError, AttributeError, TypeError, IndexError):
            return False  # a shape that the model has in mind and does not take from its layers
    return bool(changed.shape == plain.shape)
