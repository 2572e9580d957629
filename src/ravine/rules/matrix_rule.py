"""A matrix rule: elementwise equations and functions of whole matrices, one after the other."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ravine.engine.equation import Equation
from ravine.engine.specialised import Stage
from ravine.errors import EquationError
from ravine.rules.rule import Rule

Stacked = Tensor | tuple[Tensor | None, ...] | None
"""The same variable of many weights of one shape: dimension 0 counts the weights. A tuple is a
variable for each dimension of the weight; None is one that this shape has not."""


@dataclass(frozen=True)
class MatrixCall:
    """A function of stacked variables.

    Attributes:
        function: takes the variables it names and, by keyword, hyperparameters, ``t`` and ``lr``;
            returns the new ones. What it is given it must not change.
        reads: the variables; "w" is the weights before the step.
        writes: the variables that the results become.
        hyperparameters: keyword name -> default.
    """

    function: Callable[..., Any]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    hyperparameters: Mapping[str, Any]


Part = Stage | MatrixCall


def elementwise(function: Callable[..., Any], *writes: str) -> Stage:
    """Return the part that computes variables element by element; compiled as any equation."""
    equation = Equation(function)
    return Stage(equation, equation.tensors, writes)


def matrices(function: Callable[..., Any], *writes: str) -> MatrixCall:
    """Return the part that computes variables with a torch function of stacked weights."""
    parameters = inspect.signature(function).parameters.values()
    reads = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
    named = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    return MatrixCall(function, reads, writes, named)


@dataclass(frozen=True)
class Kept:
    """State of a matrix rule.

    Attributes:
        name: in ``optimizer.state``; for a state of each dimension k of the weight ``name_k``.
        start: called with the shape of the weight, an empty tensor of the state's type and device,
            and by keyword hyperparameters; returns the state at the start: a tensor, a tuple with
            one (or None) for each dimension, or None. Zeros of the weight's shape without it.
    """

    name: str
    start: Callable[..., Stacked] | None = None


@dataclass(frozen=True)
class MatrixRule(Rule):
    """A rule in parts; `Rule` says what it has in common with the others.

    Variables are w, g, the state, and any other name that a part writes, which lives for one step.
    Options that change the gradient run before the first part, those that change the weight around
    the last, which writes w.

    Attributes:
        parts: elementwise equations and functions of matrices, in order.
        kept: the state by its name in the parts. Of it ``moments`` start as zeros and are written by
            elementwise equations alone.
        refuses: called with the shape of a weight; says in words why the rule cannot step it, or "".
        fallback: options of the AdamW that steps the weights which are refused, or those for which
            ``matrix=False``; None where the rule steps every weight.
    """

    parts: tuple[Part, ...] = ()
    kept: Mapping[str, Kept] = field(default_factory=dict)
    refuses: Callable[[tuple[int, ...]], str] = lambda _: ""
    fallback: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        first = self.parts[0]
        if not (isinstance(first, Stage) and "g" in first.reads):
            raise EquationError(
                f"matrix rule {self.name} does not begin with an equation of the gradient g"
            )
        wrong = [
            name
            for name in self.moments
            if name not in self.kept
            or any(name in p.writes for p in self.parts if isinstance(p, MatrixCall))
        ]
        if wrong:
            raise EquationError(
                f"matrix rule {self.name} cannot have {wrong[0]!r} as a moment",
                expected="a state that elementwise equations alone write",
            )
        writers = [part for part in self.parts if "w" in part.writes]
        if len(writers) != 1 or not isinstance(writers[0], Stage):
            raise EquationError(
                f"matrix rule {self.name} has {len(writers)} parts that write w",
                expected="one, an elementwise equation",
            )
        known = {"w", "g", *self.kept}
        for part in self.parts:
            unknown = [name for name in part.reads if name not in known]
            if unknown:
                raise EquationError(
                    f"matrix rule {self.name} reads {unknown[0]!r} before any part has written it",
                    expected="one of " + ", ".join(sorted(known)),
                )
            known |= set(part.writes)

    @property
    def states(self) -> tuple[str, ...]:
        """None that is shaped as the weight of necessity; see ``kept``."""
        return ()

    @property
    def scratch(self) -> tuple[str, ...]:
        """The variables that live for one step."""
        names = dict.fromkeys(name for part in self.parts for name in part.writes)
        return tuple(name for name in names if name != "w" and name not in self.kept)

    @property
    def defaults_of_parts(self) -> dict[str, Any]:
        """Every hyperparameter of parts and starts with its default."""
        found: dict[str, Any] = {}
        for part in self.parts:
            found |= (part.equation if isinstance(part, Stage) else part).hyperparameters
        for kept in self.kept.values():
            if kept.start is not None:
                found |= matrices(kept.start).hyperparameters
        return {name: value for name, value in found.items() if name not in ("t", "norm")}

    @property
    def hyperparameters(self) -> list[str]:
        """The names that a user gives values to."""
        return list(self.defaults_of_parts)


def matrix_rule(
    name: str, doc: str, *parts: Part, kept: Mapping[str, str | tuple[str, Any]], **facts: Any
) -> MatrixRule:
    """Make a `MatrixRule`; see there for the arguments.

    A state may be given by its name in ``optimizer.state`` alone, or with its start.
    """
    last = next(part for part in parts if isinstance(part, Stage) and "w" in part.writes)
    states = {
        variable: Kept(given) if isinstance(given, str) else Kept(*given)
        for variable, given in kept.items()
    }
    text = inspect.cleandoc(doc)
    return MatrixRule(name, last.equation, parts=parts, kept=states, doc=text, **facts)


def descend(w, u, *, lr):
    """Take the step: w <- w - lr u."""
    return w - lr * u


DESCEND = elementwise(descend, "w")
"""The part that most rules end with."""


def not_a_matrix(shape: tuple[int, ...]) -> str:
    """Say that a shape has fewer than two dimensions, or ""."""
    if len(shape) >= 2:
        return ""
    return f"{len(shape)} dimension{'s' if len(shape) != 1 else ''}"
