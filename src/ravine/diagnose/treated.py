"""The treated program: the best remedies of the root findings together, replayed once more."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.program import Change
from ravine.diagnose.settings import as_settings, configured
from ravine.diagnose.settling import Case, measure_of
from ravine.diagnose.treatments.loss import and_also
from ravine.diagnose.trials import ROOM, climbed, trial
from ravine.watch.finding import Finding, Trial

__all__ = ["WHOLE", "Remedy", "Treated", "named", "treated"]

WHOLE = "all remedies together"
"""What the change of the whole treated program says."""

_STEPPING = ("lr", "optimizer", "groups")
"""Parts of a change that are one thing: two of them would undo each other."""


@dataclass(frozen=True)
class Remedy:
    """A remedy that is taken over.

    Attributes:
        code, name, where: of the finding.
        trial: its own trial.
        settings: the arguments of `ravine.train` that say it.
        by_hand: whether it has to be made in the program, because no configuration says it whole.
    """

    code: str
    name: str
    where: str
    trial: Trial
    settings: tuple[str, ...]
    by_hand: bool


@dataclass(frozen=True)
class Treated:
    """What to change.

    Attributes:
        task: how the program is named on the command line.
        settings: arguments of `ravine.train`: the treated configuration.
        remedies: what is in it, or has to be made by hand, the root cause first.
        left_out: remedies that helped and are not taken over, with the reason, as sentences.
        before, after, measure: one replay of all of it together, without and with it; () if there
            is no such replay.
        unproved: why there is none.
    """

    task: str
    settings: dict[str, Any] = field(default_factory=dict)
    remedies: tuple[Remedy, ...] = ()
    left_out: tuple[str, ...] = ()
    before: tuple[float, ...] = ()
    after: tuple[float, ...] = ()
    measure: str = ""
    unproved: str = ""

    @property
    def by_hand(self) -> tuple[Remedy, ...]:
        """The remedies that no configuration says."""
        return tuple(one for one in self.remedies if one.by_hand)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain dictionaries, lists, words and numbers."""
        return asdict(self)


@dataclass(frozen=True)
class _Chosen:
    finding: Finding
    trial: Trial
    change: Change


@dataclass(frozen=True)
class _Form:
    """Some remedies as settings and as what is left to be made by hand."""

    settings: dict[str, Any]
    remedies: tuple[Remedy, ...]
    change: Change


def treated(
    evidence: Evidence,
    findings: Sequence[Finding],
    cases: Sequence[Case],
    task: str,
    base: dict[str, Any] | None = None,
) -> Treated | None:
    """Put the best remedies of the root findings together and replay them once.

    Where they are of different parts of the program they are taken together, if that is no worse
    than the first alone.

    Args:
        evidence: replays.
        findings: the root cause first.
        cases: what they were found by.
        task: how the program is named on the command line.
        base: settings that are not the task's own, such as those of a run.

    Returns:
        None where no remedy of a root finding helped.
    """
    found = [one for finding in findings if (one := _best(finding, cases)) is not None]
    if not found:
        return None
    together, why = _compatible(found)
    sets = [[one] for one in found]
    if len(together) > 1:
        sets.insert(0, together)
    for chosen in sets:
        proved = _proved(evidence, chosen)
        if isinstance(proved, str):
            reason = proved
        elif len(chosen) > 1 and _worse(proved[1], found[0].trial.after[0]):
            first = found[0].trial.after[0]
            reason = f"with it {proved[1].after[0]:.3g} is reached, without it {first:.3g}"
        else:
            return _made(task, base, *proved, _left(found, chosen, why))
        # The first stays in the running by itself, so that the reason is about the others.
        why |= {one.finding.name: reason for one in chosen[1:] or chosen}
    # As a change of the program it was proved on all seeds.
    form = _form(evidence, found[:1], settings=evidence.left <= 0)
    reason = why[found[0].finding.name]
    made = _made(task, base, form, _NONE, _left(found, found[:1], why))
    return replace(made, unproved=reason)


def _left(found: list[_Chosen], taken: list[_Chosen], why: dict[str, str]) -> list[str]:
    return [
        f"{_words(one)}: {why.get(one.finding.name, 'it comes after what is taken over')}"
        for one in found
        if one not in taken
    ]


_NONE = Trial("", (), (), "", False)


def _made(
    task: str, base: dict[str, Any] | None, form: _Form, proof: Trial, left_out: list[str]
) -> Treated:
    return Treated(
        task=task,
        settings={**(base or {}), **form.settings},
        remedies=form.remedies,
        left_out=tuple(left_out),
        before=proof.before,
        after=proof.after,
        measure=proof.measure if proof.before else "",
    )


def _best(finding: Finding, cases: Sequence[Case]) -> _Chosen | None:
    if not finding.root or finding.severity == "info":
        return None
    for case in cases:
        one = case.suspicion.finding
        if (one.name, one.says, one.where) != (finding.name, finding.says, finding.where):
            continue
        if case.best is not None:
            tried = case.trials[case.best]
            change = next(c for c in case.suspicion.remedies if c.says == tried.remedy)
            return _Chosen(finding, tried, change)
    return None


def _compatible(found: list[_Chosen]) -> tuple[list[_Chosen], dict[str, str]]:
    """Return those that change different parts of the program, and why the others are left out."""
    chosen: list[_Chosen] = []
    taken: dict[str, str] = {}
    why = {}
    for one in found:
        parts = _parts(one.change)
        rival = next((taken[part] for part in parts if part in taken), None)
        if rival is not None:
            why[one.finding.name] = f"it changes what the remedy of {rival} changes"
            continue
        chosen.append(one)
        taken |= dict.fromkeys(parts, one.finding.name)
    return chosen, why


def _parts(change: Change) -> set[str]:
    plain = Change()
    names = {
        name
        for name in ("lr", "epochs", "best", "batch_size", "task", "model", "optimizer", "groups")
        if getattr(change, name) != getattr(plain, name)
    }
    stepping = any(key.startswith("optimizer") for key, _ in change.written)
    if stepping or names & set(_STEPPING):
        names = (names - set(_STEPPING)) | {"optimizer"}
    return names


def _proved(evidence: Evidence, chosen: list[_Chosen]) -> tuple[_Form, Trial] | str:
    """Return the form in which the remedies were replayed with success, or why there is none."""
    forms = [_form(evidence, chosen)]
    if forms[0].settings:  # a loss of the same name may take other shapes: then by hand
        forms.append(_form(evidence, chosen, settings=False))
    why = ""
    for form in forms:
        if evidence.left <= 0:
            return "no time was left to replay it"
        seed = evidence.program.seed
        proof = trial(evidence, form.change, [seed], measure_of(chosen[0].trial))
        if not proof.before:
            why = why or f"its replay: {proof.measure}"
        elif climbed(run := evidence.replayed(form.change, seed)):
            why = f"with it the training loss rises, to {run.final:.3g}"
        elif not proof.helped:
            why = why or f"replayed, {proof.measure} is {proof.after[0]:.3g} with it"
        else:
            return form, proof
    return why


def _form(evidence: Evidence, chosen: list[_Chosen], *, settings: bool = True) -> _Form:
    said: dict[str, Any] = {}
    change: Change | None = None
    remedies = []
    for one in chosen:
        own, rest = as_settings(evidence, one.change) if settings else ({}, one.change)
        said |= own
        if rest is not None:
            change = rest if change is None else and_also(change, rest)
        finding = one.finding
        remedies.append(
            Remedy(
                finding.code, finding.name, finding.where, one.trial, tuple(own), rest is not None
            )
        )
    whole = Change("the treated configuration", task=lambda task: configured(task, said))
    if change is not None:
        # The remedy's own options stand over the configuration's, as they were tried.
        whole = and_also(whole, change)
    # A replay stops at no patience: it ends with its best epoch, as a stopped run does.
    best = any(one.change.best for one in chosen)
    return _Form(said, tuple(remedies), replace(whole, says=WHOLE, best=best))


def _worse(together: Trial, first: float) -> bool:
    reached = together.after[0]
    room = ROOM / 2 if measure_of(together) == "error" else 0.05 * abs(first)
    return reached > first + room


def _words(one: _Chosen) -> str:
    return f"{one.finding.code} {one.finding.name}, {one.trial.remedy}"


def named(source: object, name: str) -> str:
    """Return how a program is named on the command line; its name where it was made in Python."""
    return str(source) if isinstance(source, str | os.PathLike) else name
