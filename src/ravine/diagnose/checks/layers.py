"""Do signals and gradients get through the layers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.non_finite import non_finite
from ravine.diagnose.probes.run import Gradients, Run, run
from ravine.diagnose.probes.through_time import through_time
from ravine.diagnose.probes.units import Activation, units
from ravine.diagnose.suspicion import Suspicion
from ravine.diagnose.treatments.data import STANDARDISE_INPUTS
from ravine.diagnose.treatments.init import RECURRENT, RESET
from ravine.diagnose.treatments.layers import NORMALISE, SHORTCUTS, mask_non_finite
from ravine.diagnose.treatments.model import HE, LEAKY, RELU_AND_HE
from ravine.diagnose.treatments.steps import clipped
from ravine.watch.finding import Finding

VANISHED = 0.02
"""First over last gradient norm below which a replay is asked; 1e-3 is called certain elsewhere."""

EXPLODED = 30.0


def layer_checks(evidence: Evidence) -> Iterator[Suspicion]:
    """Yield what gradients by layer and activations say, before, in and after the run."""
    yield from _non_finite(evidence)
    yield from _gradients(evidence, evidence.probe(run))
    yield from _dead(evidence)
    yield from _saturated(evidence)


def _non_finite(evidence: Evidence) -> Iterator[Suspicion]:
    seen = evidence.probe(non_finite)
    if seen is None:
        return
    where = f"{seen.module} ({seen.kind})" if seen.kind else seen.module
    told = {
        "inputs": "the inputs are not finite",
        "weight": f"the weight {seen.module} is not finite before the forward pass",
        "forward": f"{where} made it of finite inputs",
        "loss": "the loss made it of a finite output",
        "backward": f"the gradient at the inputs of {where} is not finite, that at its outputs is",
    }[seen.way]
    remedies = (mask_non_finite(seen.module),) if seen.way in ("forward", "backward") else ()
    yield Suspicion(
        Finding(
            "non-finite",
            "critical",
            "high",
            f"step {seen.step} is not finite: {told}",
            where="the data" if seen.way == "inputs" else seen.module,
            steps=(seen.step, seen.step),
            evidence={"step": seen.step, "way": seen.way, "module": seen.module},
        ),
        (*remedies, clipped(evidence.fresh().optimizer)),
        certain=True,
    )


def _gradients(evidence: Evidence, seen: Run) -> Iterator[Suspicion]:
    start = [g for g in seen.gradients[:8] if len(g.norms) > 1 and math.isfinite(g.whole)]
    if not start:
        return
    names = list(start[0].norms)
    typical = {name: median(g.norms.get(name, 0.0) for g in start) for name in names}
    first, last = typical[names[0]], typical[names[-1]]
    ratio = first / last if last > 0 else math.nan
    facts = {"norms": typical, "ratio": ratio, "layers": len(names)}
    steps = (start[0].step, start[-1].step)
    if ratio < VANISHED or (first < 1e-6 < seen.trace.losses[0]):
        yield Suspicion(
            Finding(
                "vanishing-gradient",
                "critical",
                "high",
                f"gradient norm of the first layer / the last = {ratio:.2g} "
                f"({first:.2g} / {last:.2g}) over {len(names)} layers",
                where=names[0],
                steps=steps,
                evidence=facts,
            ),
            (RELU_AND_HE, RECURRENT, NORMALISE, SHORTCUTS),
            weight=1.3 if ratio < 1e-3 else 1.0,
        )
    yield from _through_time(evidence)
    whole = [g.whole for g in seen.gradients]
    largest = max((w for w in whole if math.isfinite(w)), default=math.nan)
    exploded = ratio > EXPLODED or seen.bad_step is not None or largest > 100 * median(whole)
    if exploded or largest > 1e3:
        bad = next((n for n in reversed(names) if typical[n] > 10 * last), names[0])
        yield Suspicion(
            Finding(
                "exploding-gradient",
                "critical",
                "high",
                f"gradient norms grow from {last:.3g} in the last layer to {first:.3g} in the "
                f"first, and reach {largest:.3g}; the first layer beyond 10 times the last: {bad}",
                where=bad,
                steps=steps,
                evidence={**facts, "largest": largest},
            ),
            (HE, RECURRENT, NORMALISE, clipped(evidence.fresh().optimizer)),
            # Gradients that only grew after steps were taken speak for the steps' size.
            weight=1.3 if ratio > 10 * EXPLODED else 0.9 if _from_the_start(start, ratio) else 0.5,
        )


def _from_the_start(start: list[Gradients], ratio: float) -> bool:
    return ratio > EXPLODED or start[0].whole > 1e3


def _through_time(evidence: Evidence) -> Iterator[Suspicion]:
    for name, ratio in evidence.probe(through_time).items():
        if ratio < VANISHED or ratio > EXPLODED:
            small = ratio < VANISHED
            yield Suspicion(
                Finding(
                    "vanishing-gradient" if small else "exploding-gradient",
                    "critical",
                    "high",
                    f"the gradient at the first place of {name} is {ratio:.2g} of that at the last",
                    where=name,
                    evidence={"first / last place": ratio},
                ),
                (RECURRENT,) if small else (RECURRENT, clipped(evidence.fresh().optimizer)),
                weight=1.3,
            )


def _worst(activations: list[Activation], share: str) -> Activation | None:
    return max(activations, key=lambda a: float(getattr(a, share)), default=None)


def _dead(evidence: Evidence) -> Iterator[Suspicion]:
    seen = evidence.probe(units)
    parts = {"before the first step": seen.first, "at the end": seen.last}
    for when, one in parts.items():
        worst = _worst(one.hidden("relu"), "dead")
        if worst is None or worst.dead < 0.4:
            continue
        start = when == "before the first step"
        yield Suspicion(
            Finding(
                "dead-units",
                "critical" if worst.dead > 0.9 else "warning",
                "high",
                f"{worst.dead:.0%} of the {worst.units} ReLU units in {worst.module} are 0 for "
                f"every row, {when}",
                where=worst.module,
                evidence={"dead": {a.module: a.dead for a in one.hidden("relu")}, "when": when},
            ),
            (HE, LEAKY, RESET) if start else (LEAKY, HE),
            weight=1.4 if start else 0.9,
        )
        return


def _saturated(evidence: Evidence) -> Iterator[Suspicion]:
    seen = evidence.probe(units)
    for when, one in (("before the first step", seen.first), ("at the end", seen.last)):
        worst = _worst(one.hidden("sigmoid", "tanh"), "flat")
        if worst is None or worst.flat < 0.5:
            continue
        yield Suspicion(
            Finding(
                "saturated-units",
                "critical" if worst.flat > 0.9 else "warning",
                "high",
                f"{worst.flat:.0%} of the values in {worst.module} lie where the {worst.kind} is "
                f"flat, {when}",
                where=worst.module,
                evidence={"flat": {a.module: a.flat for a in one.hidden("sigmoid", "tanh")}},
            ),
            (RESET, STANDARDISE_INPUTS, RELU_AND_HE),
            weight=1.4 if when == "before the first step" else 0.9,
        )
        return
