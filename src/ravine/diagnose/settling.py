"""From suspicions to findings: every remedy on one seed, what helps on three, with a control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.baseline import baseline
from ravine.diagnose.program import Change
from ravine.diagnose.ranking import is_sign
from ravine.diagnose.suspicion import Suspicion
from ravine.diagnose.treatments.control import control_of
from ravine.diagnose.trials import ROOM, Measure, controlled, error_of, gain, trial
from ravine.watch.finding import Finding, Trial

SEEDS = 3
"""How many seeds a remedy is tried on before it is called one."""
CONFIRMED = 6
"""How many suspicions are tried on all seeds, those that promise most first."""
MANY = 20
"""Classes from which on an accuracy says less than a loss."""
SCREENING = 0.6
"""The share of the time that goes to trials on one seed."""
EXPLAINED = 0.8
"""A cause that was measured directly and whose remedy takes away this share explains the rest."""

_CERTAIN = {"critical": 10.0, "warning": 1.0, "info": 0.0}


@dataclass
class Case:
    """A suspicion and what was tried for it.

    Attributes:
        suspicion: what is suspected.
        trials: one for each remedy tried, in their order.
        confirmed: whether a remedy helped on all seeds.
    """

    suspicion: Suspicion
    trials: list[Trial] = field(default_factory=list)
    confirmed: bool = False

    @property
    def best(self) -> int | None:
        """The number of the remedy that takes most away, or None."""
        helping = [k for k, tried in enumerate(self.trials) if tried.helped]
        return max(helping, key=lambda k: gain(self.trials[k]), default=None)

    @property
    def gain(self) -> float:
        """The share of what was wrong that the best remedy takes away."""
        return 0.0 if self.best is None else gain(self.trials[self.best])

    @property
    def score(self) -> float:
        """How much speaks for this cause: a direct measurement, then what its repair gains."""
        one = self.suspicion
        certain = _CERTAIN[one.finding.severity] if one.certain and not one.last_resort else 0.0
        return one.weight * (certain + self.gain)

    @property
    def holds(self) -> bool:
        """Whether it is a finding."""
        return self.suspicion.certain or self.best is not None

    @property
    def finding(self) -> Finding:
        """The finding with its trials, as sure as they make it."""
        found = self.suspicion.finding
        sure = self.suspicion.certain or self.confirmed
        return replace(
            found,
            treatments=tuple(self.trials),
            confidence=found.confidence if sure else "medium",
        )

    @property
    def refuted(self) -> str:
        """A sentence on what was tried in vain; "" where nothing was."""
        tried = [one for one in self.trials if one.before and one.after]
        if self.holds or not tried:
            return ""
        says = "; ".join(
            f"{one.remedy}: {one.before[0]:.3g} to {one.after[0]:.3g}" + _beside(one)
            for one in tried
        )
        return f"{self.suspicion.finding.name}: {says} ({tried[0].measure})"


def _beside(tried: Trial) -> str:
    if not tried.control:
        return ""
    return f", and to {tried.control[0]:.3g} where a change that treats nothing was made instead"


def settle(evidence: Evidence, cases: Sequence[Case], budget: float) -> None:
    """Try the remedies of all cases, in place; an interruption leaves what was tried so far."""
    repairable = error_of(evidence.replayed()) >= ROOM or _unmeasured(evidence)
    open_cases = [case for case in cases if repairable or case.suspicion.certain]
    open_cases.sort(key=lambda case: case.score + case.suspicion.weight, reverse=True)
    _screen(evidence, open_cases, (1 - SCREENING) * budget)
    _confirm(evidence, open_cases)
    helped = any(
        case.confirmed and not case.suspicion.last_resort and case.suspicion.measure == "error"
        for case in open_cases
    )
    for case in cases:
        if case.suspicion.last_resort and helped:
            case.suspicion = replace(case.suspicion, certain=False)
            case.trials.clear()


def _unmeasured(evidence: Evidence) -> bool:
    error = error_of(evidence.replayed())
    return error != error


def _screen(evidence: Evidence, cases: Sequence[Case], reserve: float) -> None:
    seeds = [evidence.program.seed]
    most = max((len(case.suspicion.remedies) for case in cases), default=0)
    for number in range(most):
        for case in cases:
            one = case.suspicion
            if case.best is not None or number >= len(one.remedies):
                continue
            if evidence.left <= (0 if one.certain else reserve) or (
                not one.certain and _explained(cases)
            ):
                continue
            case.trials.append(_tried(evidence, one, one.remedies[number], seeds))


def _explained(cases: Sequence[Case]) -> bool:
    """Whether a cause was measured that is no sign of another: then the rest need not be tried."""
    return any(
        case.suspicion.certain and case.suspicion.measure == "error" and case.gain >= EXPLAINED
        for case in cases
        if case.suspicion.finding.severity == "critical"
        and not is_sign(case.suspicion.finding.name)
    )


def _confirm(evidence: Evidence, cases: Sequence[Case]) -> None:
    first = evidence.program.seed
    seeds = [first + k for k in range(SEEDS)]
    promising = sorted((c for c in cases if c.best is not None), key=lambda c: -c.score)
    for place, case in enumerate(promising):
        if place >= CONFIRMED:
            if not case.suspicion.certain:  # weaker than that many others
                case.trials[:] = [replace(one, helped=False) for one in case.trials]
            continue
        one = case.suspicion
        while evidence.left > 0 and (best := case.best) is not None and not case.confirmed:
            tried = _tried(evidence, one, one.remedies[best], seeds)
            if not tried.before:
                break
            if tried.helped and evidence.left > 0:
                control = control_of(one.remedies[best], one.finding.name, first)
                tried = controlled(evidence, tried, control, seeds, measure_of(tried))
            case.confirmed = tried.helped
            case.trials[best] = tried
            # One seed had praised it; another remedy may keep what it promises.
            for more in one.remedies[len(case.trials) :] if case.best is None else ():
                if evidence.left > 0 and case.best is None:
                    case.trials.append(_tried(evidence, one, more, seeds[:1]))


LOSSES: tuple[Measure, ...] = ("loss", "train/loss", "valid/loss")


def measure_of(tried: Trial) -> Measure:
    """Return by what a trial was judged in the end."""
    return next((one for one in LOSSES if one == tried.measure), "error")


def _many(evidence: Evidence) -> bool:
    """Whether the targets are so many classes that hardly any answer comes right by learning a bit."""
    return evidence.kind == "classes" and int(evidence.sample[1].max()) >= MANY


def _tried(evidence: Evidence, one: Suspicion, remedy: Change, seeds: Sequence[int]) -> Trial:
    tried = trial(evidence, remedy, seeds, one.measure)
    if tried.helped or one.measure != "error" or remedy.task is not None:
        return tried
    if one.certain:
        # A fault that was measured directly may leave the answers right and only hold the loss up.
        by_loss = trial(evidence, remedy, seeds, "train/loss")
    elif _many(evidence) and evidence.replayed().final >= evidence.probe(baseline).constant:
        # Where nothing was learned, a loss tells more than the few answers that come right: of 65
        # characters a model that knows a good deal still takes the wrong one most of the time.
        by_loss = trial(evidence, remedy, seeds, "loss")
    else:
        return tried
    return by_loss if by_loss.helped else tried
