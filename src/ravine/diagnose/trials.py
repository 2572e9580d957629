"""Whether a remedy helps: replays with and without it, with the same seeds and order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from ravine.diagnose.evidence import AS_IT_IS, Evidence
from ravine.diagnose.probes.learnable import CERTAIN, learnable
from ravine.diagnose.program import Change
from ravine.diagnose.replay import Trace, settled
from ravine.watch.finding import Trial

Measure = Literal["error", "loss", "train/loss", "valid/loss"]

ROOM = 0.05
"""Improvements of error smaller than this share of the whole are not called a repair."""
SHARE = {"error": 0.25, "loss": 0.15, "train/loss": 0.25, "valid/loss": 0.05}
"""The share of what was wrong that a repair takes away at least."""
OF_THE_GOOD = 0.5
"""The share for a program that is no worse than a quick baseline: what is healthy can be bettered."""
DIVERGED = 1.2
"""The error of a run that was not finite: worse than any constant answer, whose error is <= 1."""


def error_of(trace: Trace) -> float:
    """Return 1 - accuracy or 1 - R2 at the end, on validation data where there is any, in [0, 1.2].

    Where there is validation data the worse of both parts counts: a remedy that only learns the
    training data by heart repairs nothing. NaN where the output has no quality.
    """
    if trace.non_finite is not None:
        return DIVERGED
    found = []
    for values in (trace.train_quality, trace.valid_quality):
        last = [value for value in values[-3:] if not math.isnan(value)]
        if last:
            found.append(1 - sorted(last)[len(last) // 2])
    return min(max(found), DIVERGED) if found else math.nan


def loss_of(trace: Trace, measure: Measure) -> float:
    """Return the loss at the end, of the training or validation data, or the worse of both."""
    if trace.non_finite is not None:
        return math.inf
    train, valid = settled(trace.train_loss), settled(trace.valid_loss)
    if measure == "loss":
        return train if math.isnan(valid) else max(train, valid)
    return train if measure == "train/loss" else valid


def measured(trace: Trace, measure: Measure) -> float:
    """Return what a trial compares."""
    return error_of(trace) if measure == "error" else loss_of(trace, measure)


def helps(
    before: Sequence[float],
    after: Sequence[float],
    measure: Measure = "error",
    most: float = 1.0,
    floor: float = 0.0,
) -> bool:
    """Return whether a measure fell in every seed, and together by a share that matters.

    Under no effect each seed falls with probability 1/2: three of three by chance in one of eight,
    before the share is asked for.

    Args:
        before, after: the measure for each seed.
        measure: which; errors have to fall by `ROOM` at least.
        floor: what noise in the data keeps from everyone, of the first seed's data: the share is one
            of what lies above it.
        most: what is no repair however much worse it was before, such as the error of a constant.

    >>> helps([0.5, 0.4], [0.1, 0.2]), helps([0.5, 0.4], [0.1, 0.5]), helps([0.04], [0.01])
    (True, False, False)
    """
    pairs = list(zip(before, after, strict=True))
    if not pairs or not all(a < b for b, a in pairs):  # also where either is NaN
        return False
    mean_before, mean_after = (sum(values) / len(pairs) for values in (before, after))
    if math.isinf(mean_before):
        return math.isfinite(mean_after)
    gain = mean_before - mean_after
    if measure == "error" and (gain < ROOM or mean_after > most - min(ROOM, most / 2)):
        return False
    if floor and pairs[0][0] - floor <= ROOM:  # it was as good as can be expected
        return gain >= OF_THE_GOOD * mean_before
    return gain >= SHARE[measure] * abs(mean_before - floor)


def _floor(evidence: Evidence) -> float:
    """Return the error of a quick baseline in cross-validation, or 0 without one."""
    known = evidence.probe(learnable)
    return 0.0 if known is None or known.sigmas < CERTAIN else max(0.0, 1 - known.quality)


def by_chance(seeds: int) -> float:
    """Return how probable it is that a remedy without effect looks better in every seed."""
    return 0.5**seeds


def trial(
    evidence: Evidence, remedy: Change, seeds: Sequence[int], measure: Measure = "error"
) -> Trial:
    """Replay with and without a remedy over seeds.

    Programs without a quality (their output is no answer to the targets) are judged by their loss.
    """
    before = [evidence.replayed(AS_IT_IS, seed) for seed in seeds]
    try:
        after = [evidence.replayed(remedy, seed) for seed in seeds]
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        # The program runs as it is: the remedy does not fit it.
        return Trial(remedy.says, (), (), f"does not fit the program: {error}", False)
    if not all(run.complete for run in (*before, *after)):  # the time was up: nothing can be said
        return Trial(remedy.says, (), (), "not finished in time", False)
    if measure == "error" and any(math.isnan(error_of(run)) for run in after):
        measure = "train/loss"
    old = tuple(measured(run, measure) for run in before)
    new = tuple(measured(run, measure) for run in after)
    if measure == "error":  # an output that is no answer before the remedy
        old = tuple(DIVERGED if math.isnan(value) else value for value in old)
    most = 1 - evidence.chance
    name = (
        measure
        if measure != "error"
        else "1 - R2"
        if evidence.kind == "numbers"
        else "1 - accuracy"
    )
    helped = helps(old, new, measure, most, _floor(evidence) if measure == "error" else 0.0)
    if helped and measure == "train/loss" and math.isnan(error_of(before[0])):
        # Without a quality nobody knows where a loss should end: measured by its whole fall.
        helped = old[0] - new[0] >= SHARE[measure] * (before[0].losses[0] - new[0])
    helped = helped and not any(map(climbed, after))
    return Trial(remedy.says, old, new, name, helped)


def climbed(trace: Trace) -> bool:
    """Return whether a loss ended far above its first value.

    Answers may be right then, while the weights grow without end, which `ravine.train` calls a
    divergence.
    """
    return trace.final > trace.losses[0] + abs(trace.losses[0])


def gain(trial: Trial) -> float:
    """Return the share of what was wrong that a trial took away, in [0, 1]; 0 if it did not help."""
    if not trial.helped:
        return 0.0
    before, after = sum(trial.before), sum(trial.after)
    if not math.isfinite(before):
        return 1.0
    return min(1.0, (before - after) / abs(before)) if before else 1.0


def controlled(
    evidence: Evidence,
    tried: Trial,
    control: Change,
    seeds: Sequence[int],
    measure: Measure,
) -> Trial:
    """Put a control beside a trial; a remedy that is not clearly better than it does not help.

    Where the time is up the trial stays as it is, without a control.

    Args:
        evidence: replays.
        tried: the trial.
        control: a change that treats nothing, see `ravine.diagnose.treatments.control`.
        seeds: of the trial.
        measure: of the trial.
    """
    beside = trial(evidence, control, seeds, measure)
    if len(beside.after) != len(tried.after) or beside.measure != tried.measure:
        return tried
    kept = tried.helped and beats(tried.before, tried.after, beside.after, measure)
    return replace(tried, control=beside.after, control_remedy=control.says, helped=kept)


def beats(
    before: Sequence[float],
    after: Sequence[float],
    control: Sequence[float],
    measure: Measure = "error",
) -> bool:
    """Return whether a remedy gained at least twice what a change that treats nothing gained.

    By their means over the seeds: a control that is lucky in one seed of three takes nothing away
    from a remedy that helps in all. Of three runs each that differ by noise alone (before, after and
    control drawn alike, deviation half of the mean) `helps` is true in 11 %, and both in 5.5 %; at a
    deviation of a fifth of the mean in 3.3 % and 1.8 %.

    >>> beats([0.5, 0.5], [0.1, 0.1], [0.5, 0.4]), beats([0.5, 0.5], [0.1, 0.1], [0.2, 0.2])
    (True, False)
    """
    with_it, without, beside = (sum(v) / len(v) for v in (after, before, control))
    if math.isnan(beside) or math.isinf(beside):  # the control made it worse than any number
        return True
    least = SHARE[measure] * abs(beside) if math.isinf(without) else 0.5 * (without - with_it)
    return beside - with_it >= least
