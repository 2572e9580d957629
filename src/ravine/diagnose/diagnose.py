"""`ravine.diagnose`: why a training run fails, and what helps, proved by replay."""

from __future__ import annotations

import math
import time
from pathlib import Path

from ravine.diagnose.checks import CHECKS
from ravine.diagnose.diagnosis import Diagnosis
from ravine.diagnose.drawings import drawings
from ravine.diagnose.evidence import Evidence
from ravine.diagnose.of_run import RunProgram, run_directory, run_program
from ravine.diagnose.probes.learnable import learnable
from ravine.diagnose.program import Program
from ravine.diagnose.ranking import ranked
from ravine.diagnose.settling import Case, settle
from ravine.diagnose.treated import named, treated
from ravine.diagnose.trials import ROOM, error_of
from ravine.errors import ArgumentTypeError, RavineError, TaskError
from ravine.tasks.loading import TaskSource
from ravine.training.threads import threads_for


def diagnose(
    task: TaskSource | None = None,
    *,
    run_dir: str | Path | None = None,
    seed: int | None = None,
    budget: float = 60.0,
    treat: bool = True,
) -> Diagnosis:
    """Say what is wrong with a program, and prove it by replaying it with the remedy.

    Args:
        task: a function of a seed that returns a `ravine.Task`, a built-in name, a file, or a Task;
            or the directory of a run, which is then made again with the choices it was started with.
        run_dir: the directory of a run whose task cannot be told from it: a task that was made in
            Python, or a file of yours, which is run only if it is named. Nothing is written there.
        seed: of the program. Default: that of the run, else 0.
        budget: seconds; replays that do not fit are left out.
        treat: whether remedies are tried; otherwise only what can be measured directly is found.

    Returns:
        A `Diagnosis`: ``.findings``, the root cause first, and ``.report(path)``. After Ctrl-C it
        holds what was found so far, and ``.interrupted`` is True.

    Raises:
        TaskError: the program cannot make a single step; the message says what failed.
        RunDirectoryError: there is no run in the directory, what it wrote is damaged, or its task
            cannot be made again.
    """
    start = time.perf_counter()
    again = _again(task, run_dir)
    if again is not None:
        task, seed = again.source, again.seed if seed is None else seed
    if task is None:
        raise ArgumentTypeError(
            "there is nothing to diagnose", expected="a task, or a run directory", got="neither"
        )
    evidence = Evidence(Program(task, seed or 0), start + budget)
    try:
        told = _diagnosed(evidence, task, again, budget, treat)
    finally:
        evidence.program.put_back()
    told.seconds = time.perf_counter() - start
    return told


def _diagnosed(
    evidence: Evidence, task: TaskSource, again: RunProgram | None, budget: float, treat: bool
) -> Diagnosis:
    first = evidence.fresh()
    with threads_for(first.task, first.train.size, first.device):
        _one_step(evidence)
        cases: list[Case] = []
        interrupted = False
        try:
            for check in CHECKS:
                cases += [Case(suspicion) for suspicion in check(evidence)]
            if treat and evidence.left > 0:
                settle(evidence, cases, budget)
        except KeyboardInterrupt:
            interrupted = True
        told = _told(evidence, cases, interrupted)
        base = {}
        if again is not None:
            told.measured |= {f"{name} of the run": value for name, value in again.reached.items()}
            told.notes, base = again.notes, again.settings
        if treat and not interrupted:
            name = named(task, told.name) if again is None else again.task
            try:
                told.treated = treated(evidence, told.findings, cases, name, base)
            except KeyboardInterrupt:  # what was found is not lost by it
                told.interrupted = True
        told.drawings = drawings(evidence, told.findings, told.treated)
        return told


def _again(task: TaskSource | None, run_dir: str | Path | None) -> RunProgram | None:
    """Return the program of a run directory, or None where none is meant."""
    if run_dir is not None:
        return run_program(Path(run_dir), task)
    directory = run_directory(task)
    return None if directory is None else run_program(directory)


def _one_step(evidence: Evidence) -> None:
    """Make sure that the program can be run at all, before anything is said about how it runs."""
    fresh = evidence.fresh()
    fresh.model.train()
    stage = "taking a batch of the training data"
    try:
        inputs, targets = next(iter(fresh.train.epoch(1)))
        stage = f"the model on inputs {_shape(inputs)}"
        output = fresh.model(inputs)
        stage = f"the loss of outputs {_shape(output)} and targets {_shape(targets)}"
        loss = fresh.loss(output, targets)
        stage = "the gradient of the loss"
        if any(weight.requires_grad for weight in fresh.model.parameters()):
            loss.backward()  # type: ignore[no-untyped-call]
        stage = "the optimizer's step"
        fresh.optimizer.step()
    except RavineError:
        raise
    except Exception as error:
        raise TaskError(
            f"the program cannot make a step: {stage} failed",
            where=f"task {fresh.task.name!r}",
            got=f"{type(error).__name__}: {error}",
            do="mend this first: what does not run cannot be diagnosed by running it",
        ) from error


def _shape(value: object) -> str:
    shape = getattr(value, "shape", None)
    if shape is None:
        return type(value).__name__
    return f"{tuple(shape)} {str(getattr(value, 'dtype', '')).removeprefix('torch.')}"


def _told(evidence: Evidence, cases: list[Case], interrupted: bool) -> Diagnosis:
    findings = ranked([(case.finding, case.score) for case in cases if case.holds])
    ruled_out = tuple(filter(None, (case.refuted for case in cases)))
    run = evidence.replayed()
    if error_of(run) < ROOM:
        ruled_out += (f"the error is {error_of(run):.2g}: too little for a remedy to matter",)
    if not run.complete:
        fresh = evidence.fresh()
        ruled_out += (
            f"the time was over after {len(run.losses)} of {fresh.steps} steps: what needs the end "
            "of the run was not judged; give a larger budget, or diagnose fewer epochs",
        )
    wrong = any(finding.severity != "info" for finding in findings)
    return Diagnosis(
        name=evidence.fresh().task.name,
        findings=findings,
        ruled_out=ruled_out,
        verdict="found" if wrong else "healthy" if _well(evidence) else "unclear",
        measured={"train loss": run.final, "train quality": run.final_quality},
        interrupted=interrupted,
    )


def _well(evidence: Evidence) -> bool:
    """Whether the program reaches what can be expected of its data.

    That is the quality of a quick baseline in cross-validation, where there is one: what noise
    keeps from it, it keeps from the program. Otherwise a fifth of the way from chance to perfect.
    """
    run = evidence.replayed()
    error = error_of(run)
    if math.isnan(error) or not run.complete:
        return False
    if error < ROOM:
        return True
    reference = evidence.probe(learnable)
    if reference is None:
        return 1 - error > evidence.chance + 0.2 * (1 - evidence.chance)
    return 1 - error > evidence.chance and 1 - error >= reference.quality - 2 * ROOM
