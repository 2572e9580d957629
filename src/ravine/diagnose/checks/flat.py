"""Why a run does not get on: noise, a saddle, a plateau, or a place from which nothing leads down."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.baseline import baseline
from ravine.diagnose.probes.noise import noise
from ravine.diagnose.probes.place import Place, first_place, last_place
from ravine.diagnose.probes.run import run
from ravine.diagnose.suspicion import Suspicion
from ravine.diagnose.treatments.init import PERTURB, RESET, RESTART, RESTART_FAR
from ravine.diagnose.treatments.steps import adam, batches_of, decayed, with_momentum
from ravine.diagnose.trials import Measure, error_of
from ravine.watch.finding import Finding

STILL = 0.02
"""A share of the loss: what changes less over the second half of the run stands still."""

POOR = 0.3
"""The error above which a run that stands still is not simply done."""


def flat_checks(evidence: Evidence) -> Iterator[Suspicion]:
    """Yield what noise, gradient and curvature say at the end of the run."""
    seen = evidence.probe(run)
    if seen.trace.non_finite is not None or len(seen.trace.losses) < 4:
        return
    yield from _noisy(evidence)
    error = error_of(seen.trace)
    losses = seen.trace.train_loss or seen.trace.losses
    if not error < POOR and stands_still(losses):
        yield from _still(evidence)
    elif not error < POOR and stands_still(losses[::-1]):  # the first half: it left too late
        yield _plateau(evidence, None, (1, len(seen.trace.losses) // 2), math.nan)


def stands_still(losses: list[float]) -> bool:
    """Return whether a loss changes by less than 2 % of itself over the second half.

    Args:
        losses: in the order of the run; in reverse, the first half is judged.

    >>> stands_still([0.7, 0.694, 0.693, 0.693]), stands_still([0.7, 0.6, 0.5, 0.4])
    (True, False)
    """
    half = losses[len(losses) // 2 :]
    size = max(abs(half[0]), 1e-3 * abs(losses[0]), 1e-12)
    return len(losses) > 3 and max(half) - min(half) <= STILL * size


def _noisy(evidence: Evidence) -> Iterator[Suspicion]:
    seen, found = evidence.probe(run), evidence.probe(noise)
    steps, optimizer = len(seen.trace.losses), seen.fresh.optimizer
    size = found.batch if found is not None else 0
    facts = {"noise scale": found.scale if found else math.nan, "batch": size, "steps": steps}
    says = (
        f"noise and gradient are of equal size at batches of {facts['noise scale']:.3g} rows; the "
        f"program takes {size}"
    )
    noisy = found is not None and found.scale > 4 * size
    lr = max((float(g.get("lr", 0.0)) for g in optimizer.param_groups), default=0.0)
    if noisy and 0 < size <= 8:
        yield Suspicion(
            Finding("batch-too-small", "warning", "high", says, evidence=facts),
            (batches_of(32),),
            weight=1.2,
        )
    if noisy and lr > 0 and seen.fresh.task.scheduler is None:
        yield Suspicion(
            Finding(
                "noise-floor",
                "warning",
                "high",
                f"{says}, and its learning rate stays at {lr:g} to the end",
                evidence=facts,
            ),
            (decayed(steps),),
        )


def _still(evidence: Evidence) -> Iterator[Suspicion]:
    seen = evidence.probe(run)
    last, first = evidence.probe(last_place), evidence.probe(first_place)
    trace = seen.trace
    steps = (len(trace.losses) // 2, len(trace.losses))
    constant = evidence.probe(baseline).constant
    at_baseline = abs(trace.final - constant) <= STILL * abs(constant)
    losses = trace.train_loss or trace.losses
    stood = max(losses) - min(losses) <= STILL * max(map(abs, losses))  # from the first step on
    places = (last, first) if stood else (last,)
    place = next((p for p in places if p is not None and p.saddle), None)
    if place is not None:
        yield _saddle(evidence, place, steps)
    elif last is not None and last.stationary and not at_baseline:
        yield _stationary(last, steps, error_of(trace))
    if place is None and (at_baseline or last is None or not last.stationary):
        yield _plateau(evidence, last, steps, constant if at_baseline else math.nan)


def _measure(error: float) -> Measure:
    """Return what trials compare: the loss where the output has no quality."""
    return "train/loss" if math.isnan(error) else "error"


def _facts(place: Place | None) -> dict[str, float]:
    if place is None:
        return {}
    return {
        "gradient": place.gradient,
        "agreement": place.agreement,
        "lowest eigenvalue": place.lowest,
        "highest eigenvalue": place.highest,
        "held-out curvature": place.held_out,
        "fall": place.fall,
        "fall along the gradient": place.slope_fall,
    }


def _saddle(evidence: Evidence, place: Place, steps: tuple[int, int]) -> Suspicion:
    return Suspicion(
        Finding(
            "saddle-point",
            "critical",
            "high",
            f"the loss stands still at {place.loss:.3g} with gradient {place.gradient:.2g}; the "
            f"curvature is {place.lowest:.2g} along one direction ({place.held_out:.2g} on held-out "
            f"rows), and a step along it takes {place.fall:.3g} from the held-out loss",
            steps=steps,
            evidence=_facts(place),
        ),
        (PERTURB, with_momentum(evidence.fresh().optimizer), RESET, adam(0.01)),
        certain=place.fall > 0.2 * abs(place.loss),
        measure=_measure(error_of(evidence.replayed())),
    )


def _stationary(place: Place, steps: tuple[int, int], error: float) -> Suspicion:
    return Suspicion(
        Finding(
            "stationary-point",
            "warning",
            "medium",
            f"the loss stands still at {place.loss:.3g}, and neither the gradient "
            f"({place.gradient:.2g}) nor the curvature ({place.lowest:.2g} to {place.highest:.2g}) "
            "leads down",
            steps=steps,
            evidence=_facts(place),
        ),
        (RESTART, RESTART_FAR, PERTURB),
        certain=not error < 0.9,  # else it may be the best there is: a restart has to do better
        measure=_measure(error),
    )


def _plateau(
    evidence: Evidence, place: Place | None, steps: tuple[int, int], constant: float
) -> Suspicion:
    known = math.isfinite(constant)
    leads = place is not None and place.slope_fall > 0.2 * abs(place.loss)
    where = f", the loss of the best constant answer ({constant:.3g})" if known else ""
    slope = (
        f"; a long step along its gradient takes {place.slope_fall:.3g} away"
        if leads and place
        else ""
    )
    final = evidence.replayed().final
    return Suspicion(
        Finding(
            "plateau",
            "warning",
            "high" if known else "medium",
            f"the loss stands still from step {steps[0]} to {steps[1]}, and ends at {final:.3g}"
            f"{where}{slope}",
            steps=steps,
            evidence=_facts(place),
        ),
        (adam(0.01), adam(0.1), PERTURB, RESET),
        certain=known or leads,
    )
