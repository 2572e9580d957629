"""From a rule, or a function that is one, to its optimizer class."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any, overload

from ravine.engine.equation import REQUIRED, Equation
from ravine.optim import signature
from ravine.optim.evaluation import EvaluatedOptimizer
from ravine.optim.matrix_optimizer import MatrixOptimizer
from ravine.optim.optimizer import Optimizer
from ravine.rules import MatrixRule, Rule
from ravine.rules.rule import Bound, Check, Initial


def optimizer_class(rule: Rule, module: str, qualname: str) -> type[Optimizer]:
    """Return the optimizer class of a rule, with a signature that `inspect` and IDEs can read."""
    namespace = {"__doc__": rule.doc, "__module__": module, "__qualname__": qualname}
    base = Optimizer if rule.evaluation is None else EvaluatedOptimizer
    base = MatrixOptimizer if isinstance(rule, MatrixRule) else base
    made: type[Optimizer] = types.new_class(
        rule.name, (base,), {"rule": rule}, lambda scope: scope.update(namespace)
    )
    made.positional = signature.torchs_order(rule.name)
    made.__signature__ = signature.of(made.positional, made.options)  # type: ignore[attr-defined]
    return made


@overload
def update_rule(function: Callable[..., Any], /) -> type[Optimizer]: ...
@overload
def update_rule(
    *,
    state_names: Mapping[str, str] | None = None,
    initial: Mapping[str, Initial] | None = None,
    bounds: Mapping[str, Bound] | None = None,
    check: Check | None = None,
    numbers: Mapping[str, Initial] | None = None,
    shared: Mapping[str, Initial] | None = None,
    evaluation: tuple[Callable[..., Any], Callable[..., Any]] | None = None,
    moments: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., Any]], type[Optimizer]]: ...
def update_rule(
    function: Callable[..., Any] | None = None,
    /,
    *,
    state_names: Mapping[str, str] | None = None,
    initial: Mapping[str, Initial] | None = None,
    bounds: Mapping[str, Bound] | None = None,
    check: Check | None = None,
    numbers: Mapping[str, Initial] | None = None,
    shared: Mapping[str, Initial] | None = None,
    evaluation: tuple[Callable[..., Any], Callable[..., Any]] | None = None,
    moments: Mapping[str, str] | None = None,
) -> Any:
    """Make an optimizer of an update equation, written as a function of scalars.

    The positional names are the weight, its gradient, and any further state (zero at the start).
    Names after the ``*`` are hyperparameters; ``t`` (steps taken by the weight, from 1) and ``lr``
    among them; one with the name of an option (``weight_decay``, ``clip_norm``) is meant by the rule
    itself, and the option is left out. It returns the new weight and then every state in the same
    order. It may use arithmetic, comparisons joined by ``&``, ``|`` and ``~``, ``where``, the functions of
    `ravine.engine.functions`, and ``if`` on hyperparameters. ``tensor_norm(x)``, ``tensor_mean(x)``
    and ``model_sum(x)`` of an expression x are numbers taken from all elements, found in a sweep
    before the step.

    Args:
        function: the equation.
        state_names: state name -> its name in ``optimizer.state``.
        initial: state name -> its value at the start: a number, the name of a hyperparameter, or
            "w" for a copy of the weight.
        bounds: hyperparameter -> (what is expected, in words; a function that says whether it is).
        check: called with each group's hyperparameters; raises `ArgumentError` if they do not fit.
        numbers: keyword name -> value at the start (a number or the name of a hyperparameter), for
            names that are state, one number for each weight, computed in float64; their new values
            are returned after the tensors.
        shared: the same for numbers of the whole optimizer, returned last.
        evaluation: two equations, from the weights of training to those to evaluate with, and back,
            on the weight and any state; the optimizer then has ``train()`` and ``eval()``.
        moments: state name -> "signed" or "nonnegative", for those that ``state_dtype`` may round.

    Returns:
        A subclass of `ravine.optim.Optimizer`, called as ``rule(model.parameters(), lr=...)``.

    Raises:
        EquationError: the function cannot be an update equation; the message shows where.

    Example:
        >>> import torch
        >>> import ravine
        >>> @ravine.update_rule
        ... def sign_descent(w, g, *, lr):
        ...     return w - lr * ((g > 0) * 1.0 - (g < 0) * 1.0)
        >>> w = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
        >>> optimizer = sign_descent([w], lr=0.5)
        >>> (w**2).sum().backward()
        >>> optimizer.step()
        >>> w.tolist()
        [0.5, -0.5]
    """

    def decorate(function: Callable[..., Any]) -> type[Optimizer]:
        equation = Equation(function)
        rule = Rule(
            equation.name,
            equation,
            state_names or {},
            initial or {},
            bounds=bounds or {},
            check=check,
            doc=equation.doc or f"The update rule {equation.name}.",
            numbers=numbers or {},
            shared=shared or {},
            evaluation=evaluation,
            moments=moments or {},
        )
        made = optimizer_class(rule, function.__module__, function.__qualname__)
        decisive = {name: made.options.get(name) for name in made.program.decisive}
        if equation.source is not None and REQUIRED not in decisive.values():
            made.program.specialise(decisive)  # what the engine cannot read is told here
        return made

    return decorate if function is None else decorate(function)
