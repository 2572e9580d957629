"""`ravine.diagnose`: why a training run fails, and what helps, proved by replay."""

from __future__ import annotations

import time
from dataclasses import replace

from ravine.diagnose.checks import CHECKS
from ravine.diagnose.diagnosis import Diagnosis
from ravine.diagnose.drawings import drawings
from ravine.diagnose.evidence import Evidence
from ravine.diagnose.finding import Finding, Trial
from ravine.diagnose.program import Program
from ravine.diagnose.suspicion import Suspicion
from ravine.diagnose.trials import ROOM, error_of, trial
from ravine.tasks.loading import TaskSource
from ravine.training.threads import threads_for

SEEDS = 3
"""How many seeds a remedy is tried on before it is called one."""


def diagnose(task: TaskSource, *, seed: int = 0, budget: float = 60.0) -> Diagnosis:
    """Say what is wrong with a program, and prove it by replaying it with the remedy.

    Args:
        task: a function of a seed that returns a `ravine.Task`, a built-in name, a file, or a Task.
        seed: of the program.
        budget: seconds; replays that do not fit are left out.

    Returns:
        A `Diagnosis`: ``.findings``, the root cause first, and ``.report(path)``.
    """
    evidence = Evidence(Program(task, seed), time.perf_counter() + budget)
    first = evidence.fresh()
    with threads_for(first.task, first.train.size, first.device):
        return _diagnosed(evidence, time.perf_counter())


def _diagnosed(evidence: Evidence, start: float) -> Diagnosis:
    suspicions = [suspicion for check in CHECKS for suspicion in check(evidence)]
    settled = [_settled(evidence, one) for one in suspicions]
    found = [pair for pair in settled if pair is not None]
    found.sort(key=lambda pair: pair[1], reverse=True)
    run = evidence.replayed()
    findings = [replace(finding, root=number == 0) for number, (finding, _) in enumerate(found)]
    healthy = error_of(run) < 0.5
    return Diagnosis(
        name=evidence.fresh().task.name,
        findings=findings,
        ruled_out=tuple(
            one.finding.name for one, pair in zip(suspicions, settled, strict=True) if pair is None
        ),
        verdict="found" if findings else "healthy" if healthy else "unclear",
        measured={"train loss": run.final, "train quality": run.final_quality},
        seconds=time.perf_counter() - start,
        drawings=drawings(evidence, findings),
    )


def _settled(evidence: Evidence, suspicion: Suspicion) -> tuple[Finding, float] | None:
    """Return the finding with its trials and how much speaks for it; None if nothing does."""
    if not suspicion.certain and error_of(evidence.replayed()) < ROOM:
        return None  # nothing that a remedy could repair
    seeds = [evidence.program.seed]
    more = [*seeds, *(seeds[0] + k for k in range(1, SEEDS))]
    trials: list[Trial] = []
    gain = 0.0
    for remedy in suspicion.remedies:
        if evidence.left <= 0:
            break
        tried = trial(evidence, remedy, seeds)
        if tried.helped and evidence.left > 0:
            tried = trial(evidence, remedy, more)
        trials.append(tried)
        if tried.helped:
            gain = max(gain, sum(tried.before) / len(more) - sum(tried.after) / len(more))
            break
    finding = replace(suspicion.finding, treatments=tuple(trials))
    if suspicion.certain:
        return finding, 10.0 + gain
    return (finding, gain * suspicion.weight) if gain > 0 else None
