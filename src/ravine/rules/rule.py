"""A rule: an update equation with what an optimizer has to know besides the formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ravine.engine.equation import REQUIRED, Equation
from ravine.errors import EquationError

Check = Callable[[Mapping[str, Any]], None]
Bound = tuple[str, Callable[[Any], bool]]
Initial = float | str

_MOMENTS = ("signed", "nonnegative")


@dataclass(frozen=True)
class Rule:
    """An update equation and its facts.

    Attributes:
        name: the name of the optimizer class.
        equation: the formula; its first tensors are the weight and the gradient, the others state.
        state_names: state name in the equation -> name in ``optimizer.state`` (torch's, where torch
            has the rule).
        initial: state name -> value at the start: a number, the name of a hyperparameter (its value
            when the state is made), or "w" for a copy of the weight; 0 where it is not named.
        moments: state name -> "signed" or "nonnegative", for running averages and sums of the
            gradient or its square, which stand being rounded at random; ``state_dtype`` is theirs.
        numbers: keyword names of the equation that are state, one number for each weight, computed
            in float64: name -> value at the start, a number or the name of a hyperparameter. Their
            new values are returned after the tensors.
        shared: the same for numbers of the whole optimizer, kept in its groups and returned last;
            the first weight that is stepped says what they become.
        evaluation: two equations for a rule whose weights in training are not those to evaluate
            with: from the first to the second and back, on the weight and any state.
        defaults: values of options that differ from every optimizer's (``weight_decay``, ``decay``).
        bounds: hyperparameter -> (what is expected, in words; whether a value is that), for names
            that mean something of the rule's own.
        check: called with a group's hyperparameters; raises `ArgumentError` if they do not fit each
            other.
        doc: the docstring of the optimizer class.
    """

    name: str
    equation: Equation
    state_names: Mapping[str, str] = field(default_factory=dict)
    initial: Mapping[str, Initial] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    bounds: Mapping[str, Bound] = field(default_factory=dict)
    check: Check | None = None
    doc: str = ""
    numbers: Mapping[str, Initial] = field(default_factory=dict)
    shared: Mapping[str, Initial] = field(default_factory=dict)
    evaluation: tuple[Callable[..., Any], Callable[..., Any]] | None = None
    moments: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.equation.tensors) < 2:
            raise EquationError(
                f"update rule {self.equation.name!r} takes {len(self.equation.tensors)} tensors",
                expected="at least two: the weight and its gradient, then any state",
                do=f"write def {self.equation.name}(w, g, *, lr)",
            )
        taken = sorted({"w", "w_before", "g", "average"} & set(self.states))
        if taken:
            raise EquationError(
                f"update rule {self.equation.name!r} has a state called {taken[0]!r}",
                expected="a name other than w, w_before, g and average, which every optimizer has",
            )
        _check_numbers(self)
        _check_evaluation(self)
        kept = (*self.states, *self.numbers)
        names = [self.state_names.get(state, state) for state in kept]
        clash = sorted({n for n in names if n in ("step", "average") or names.count(n) > 1})
        if clash:
            raise EquationError(
                f"update rule {self.equation.name!r} keeps a state under the name {clash[0]!r}",
                expected="a name for each state, other than step and average",
                do="give another in state_names",
            )
        wrong = {name: kind for name, kind in self.moments.items() if kind not in _MOMENTS}
        if wrong:
            raise EquationError(
                f"update rule {self.equation.name!r} has a moment of an unknown kind",
                got=", ".join(f"{name!r}: {kind!r}" for name, kind in wrong.items()),
                expected=" or ".join(map(repr, _MOMENTS)),
            )
        unknown = sorted({*self.state_names, *self.initial} - set(kept))
        unknown += sorted(self.moments.keys() - set(self.states))
        if unknown:
            raise EquationError(
                f"update rule {self.equation.name!r} has no state {', '.join(unknown)}",
                expected="one of " + (", ".join(kept) or "none: the rule has no state"),
            )
        numbers = self.hyperparameters
        for state, start in self.initial.items():
            if isinstance(start, str) and start not in ("w", *numbers):
                raise EquationError(
                    f"update rule {self.equation.name!r} cannot start the state {state!r}",
                    got=repr(start),
                    expected="a number, 'w' for a copy of the weight, or a hyperparameter: "
                    + (", ".join(numbers) or "the rule has none"),
                )
        unbounded = sorted(self.bounds.keys() - set(numbers))
        if unbounded:
            raise EquationError(
                f"update rule {self.equation.name!r} bounds {', '.join(unbounded)}, "
                "which it does not take",
                expected="one of " + (", ".join(numbers) or "none: it has no hyperparameters"),
            )

    @property
    def hyperparameters(self) -> list[str]:
        """The names that a user gives values to."""
        state = {"t", *self.numbers, *self.shared}
        return [name for name in self.equation.hyperparameters if name not in state]

    @property
    def states(self) -> tuple[str, ...]:
        """The equation's names of its state."""
        return self.equation.tensors[2:]

    def derive(self, name: str, doc: str, **defaults: Any) -> Rule:
        """Return the same equation under another name and with other defaults."""
        return replace(self, name=name, doc=doc, defaults={**self.defaults, **defaults})


def _check_evaluation(rule: Rule) -> None:
    """Raise an error for an equation of `Rule.evaluation` that reads what the rule does not have."""
    for function in rule.evaluation or ():
        equation = Equation(function)
        known = ("w", *rule.states, *rule.hyperparameters)
        for name in (*equation.tensors, *equation.hyperparameters):
            if name not in known:
                raise EquationError(
                    f"equation {equation.name!r} reads {name}, which the rule does not have",
                    expected="one of " + ", ".join(known),
                )


def _check_numbers(rule: Rule) -> None:
    """Raise an error for a number that is state and cannot be."""
    given = rule.equation.hyperparameters
    for name, start in (*rule.numbers.items(), *rule.shared.items()):
        if name in ("t", "lr", "norm") or given.get(name, 0.0) is not REQUIRED:
            raise EquationError(
                f"update rule {rule.equation.name!r} cannot keep the number {name!r}",
                expected="a keyword name of the equation without a default, other than t, lr, norm",
                do=f"write def {rule.equation.name}(w, g, *, {name}, lr=...)",
            )
        if isinstance(start, str) and start not in rule.hyperparameters:
            raise EquationError(
                f"update rule {rule.equation.name!r} cannot start the number {name!r}",
                got=repr(start),
                expected="a number, or a hyperparameter: " + ", ".join(rule.hyperparameters),
            )
    twice = sorted(rule.numbers.keys() & rule.shared.keys())
    if twice:
        raise EquationError(
            f"update rule {rule.equation.name!r} keeps {twice[0]!r} for each weight and for all"
        )


def rule(
    name: str,
    *,
    state_names: Mapping[str, str] | None = None,
    initial: Mapping[str, Initial] | None = None,
    defaults: Mapping[str, Any] | None = None,
    bounds: Mapping[str, Bound] | None = None,
    check: Check | None = None,
    numbers: Mapping[str, Initial] | None = None,
    shared: Mapping[str, Initial] | None = None,
    evaluation: tuple[Callable[..., Any], Callable[..., Any]] | None = None,
    moments: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., Any]], Rule]:
    """Make a `Rule` of the function below; see there for the arguments."""

    def decorate(function: Callable[..., Any]) -> Rule:
        equation = Equation(function)
        return Rule(
            name,
            equation,
            state_names or {},
            initial or {},
            defaults or {},
            bounds or {},
            check=check,
            doc=equation.doc,
            numbers=numbers or {},
            shared=shared or {},
            evaluation=evaluation,
            moments=moments or {},
        )

    return decorate
