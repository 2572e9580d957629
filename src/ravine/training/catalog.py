"""What can be named in an expression, and how a name, an object or a factory becomes the thing."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from ravine.errors import ArgumentError, ArgumentTypeError, UnknownOptionError
from ravine.expression import parse
from ravine.losses import FUNCTIONS, LOSSES
from ravine.losses.modules import LossModule
from ravine.optim import OPTIMIZERS as _CLASSES
from ravine.optim import Optimizer
from ravine.regularize import REGULARIZERS
from ravine.schedules import SCHEDULES

__all__ = [
    "LOSSES",
    "OPTIMIZERS",
    "REGULARIZERS",
    "SCHEDULES",
    "choose_loss",
    "choose_optimizer",
    "choose_regularizers",
    "merged",
    "written",
]

Maker = Callable[[Any], torch.optim.Optimizer]


class OptimizerChoice(functools.partial[Optimizer]):
    """An optimizer class with its options, waiting for the weights."""

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.keywords.items())
        name = expression_name(self.func.__name__)
        return f"{name}({options})"


def expression_name(class_name: str) -> str:
    """Return how a class is written in an expression: ``GradientDescent`` as gradient_descent."""
    return re.sub(r"(?<=[a-z]{2})(?=[A-Z][A-Za-z])", "_", class_name).lower()


def _maker(cls: type[Optimizer]) -> Callable[..., OptimizerChoice]:
    signature = inspect.signature(cls)

    def make(*args: Any, **options: Any) -> OptimizerChoice:
        bound = make.__signature__.bind(*args, **options)  # type: ignore[attr-defined]
        cls([torch.nn.Parameter(torch.zeros(1))], **bound.arguments)  # wrong values are told now
        return OptimizerChoice(cls, **bound.arguments)

    make.__name__ = expression_name(cls.__name__)
    make.__doc__ = cls.__doc__
    make.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=list(signature.parameters.values())[1:]
    )
    return make


OPTIMIZERS: dict[str, Callable[..., OptimizerChoice]] = {
    expression_name(name): _maker(cls) for name, cls in _CLASSES.items()
}
"""Optimizers by their names in expressions; a call returns what waits for the weights."""


def choose_optimizer(choice: Any, options: Mapping[str, Any]) -> tuple[Maker, str]:
    """Return what makes the optimizer, and how it is written.

    Args:
        choice: an expression, a class of `ravine.optim`, a `functools.partial` of one, or any
            function of the weights that returns a torch optimizer.
        options: further options, from regularisers; they may not contradict the choice.
    """
    if isinstance(choice, str):
        text, choice = choice, parse(choice, OPTIMIZERS, kind="optimizer", inside=SCHEDULES)
        if not isinstance(choice, OptimizerChoice):
            raise ArgumentError(
                "the expression is not that of an optimizer",
                got=text,
                expected="one of " + ", ".join(sorted(OPTIMIZERS)),
                do="a schedule is the lr of one: adam(lr=cosine(100, peak=1e-3))",
            )
    if _is_class(choice):
        choice = functools.partial(choice)
    if isinstance(choice, torch.optim.Optimizer) or not callable(choice):
        raise ArgumentTypeError(
            "the optimizer is not one that can be made for the task's weights",
            got=repr(choice),
            expected='an expression such as "adam(lr=1e-3)", or a function of the weights',
            do="write functools.partial(Adam, lr=1e-3), or lambda params: Adam(params, lr=1e-3)",
        )
    if isinstance(choice, functools.partial) and _is_class(choice.func):
        if choice.args:
            raise ArgumentTypeError(
                "the optimizer is given its weights by the run",
                got=f"{len(choice.args)} positional arguments in {written(choice)}",
                expected=f"functools.partial({choice.func.__name__}, lr=...)",
            )
        made = OptimizerChoice(choice.func, **_joined(choice.keywords, options, "the optimizer"))
        return made, repr(made)
    if options:
        raise ArgumentError(
            f"{', '.join(options)} cannot be given to an optimizer that is not Ravine's",
            got=written(choice),
            do="use an optimizer of ravine.optim",
        )
    return choice, written(choice)


def choose_loss(choice: Any, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the loss as a callable of (output, target), and how it is written."""
    if isinstance(choice, str):
        choice = parse(choice, LOSSES, kind="loss")
    if isinstance(choice, type) and issubclass(choice, torch.nn.Module):
        choice = choice()
    if not callable(choice):
        raise ArgumentTypeError(
            "the loss is neither an expression nor a callable",
            got=repr(choice),
            expected='an expression such as "huber(delta=2)", or loss(output, target)',
        )
    choice = _as_module(choice)
    known = choice.function.hyperparameters if isinstance(choice, LossModule) else {}
    for name in options:
        if name not in known:
            able = [loss for loss, made in LOSSES.items() if name in made.function.hyperparameters]
            raise UnknownOptionError(
                f"the loss {written(choice)} has no option {name!r}",
                expected="one of " + ", ".join(known) if known else "no options",
                do=f"use {' or '.join(able)}, or leave {name} out" if able else "",
            )
    if isinstance(choice, LossModule):
        if options:
            choice = type(choice)(
                reduction=choice.reduction,
                check=choice.check,
                **_joined(choice.hyperparameters, options, "the loss"),
            )
        return choice, choice.expression()
    return choice, written(choice)


def choose_regularizers(choices: Any) -> list[Any]:
    """Return the regularisers of expressions and objects; ``"none"`` stands for no regulariser."""
    if isinstance(choices, str) or hasattr(choices, "prepare_model"):
        choices = [choices]
    if not isinstance(choices, Iterable):
        raise _no_regularizer(choices)
    choices = list(choices)
    if any(isinstance(choice, str) and choice.strip() == "none" for choice in choices):
        if len(choices) > 1:
            raise ArgumentError(
                "'none' stands for no regulariser, and others are given",
                got=", ".join(map(str, choices)),
                do="leave 'none' out, or the others",
            )
        return []
    chosen = [
        parse(choice, REGULARIZERS, kind="regularizer", inside=SCHEDULES)
        if isinstance(choice, str)
        else choice
        for choice in choices
    ]
    seen: dict[type, Any] = {}
    for one in chosen:
        if isinstance(one, type) or not hasattr(one, "prepare_model"):
            raise _no_regularizer(one)
        if type(one) in REGULARIZERS.values() and type(one) in seen:
            raise ArgumentError(
                f"{type(one).__name__} is given twice",
                got=f"{seen[type(one)]!r} and {one!r}",
                do="leave one out",
            )
        seen[type(one)] = one
    return chosen


def merged(options: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the options of several regularisers as one dictionary; they may not contradict."""
    found: dict[str, Any] = {}
    for more in options:
        found = _joined(found, more, "one regulariser")
    return found


def written(thing: Any) -> str:
    """Return how a callable is written, without the address that Python puts into its repr."""
    if isinstance(thing, functools.partial):
        given = [*map(repr, thing.args), *(f"{k}={v!r}" for k, v in thing.keywords.items())]
        return f"{written(thing.func)}({', '.join(given)})"
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
    if isinstance(name, str):
        return name
    text = repr(thing)
    return type(thing).__name__ if " at 0x" in text else " ".join(text.split())


def _joined(given: Mapping[str, Any], more: Mapping[str, Any], owner: str) -> dict[str, Any]:
    for name, value in more.items():
        if name in given and given[name] != value:
            raise ArgumentError(
                f"{name} is given twice",
                got=f"{name}={given[name]!r} in {owner}, {value!r} among the regularisers",
                do="leave one out",
            )
    return {**given, **more}


def _as_module(choice: Any) -> Any:
    """Return the module of one of Ravine's loss functions, or of a partial of one."""
    function, options = choice, {}
    if isinstance(choice, functools.partial) and not choice.args:
        function, options = choice.func, choice.keywords
    for name, known in FUNCTIONS.items():
        if known is function and options.keys() <= {*known.hyperparameters, "reduction", "check"}:
            return LOSSES[name](**options)
    return choice


def _is_class(choice: Any) -> bool:
    return isinstance(choice, type) and issubclass(choice, Optimizer)


def _no_regularizer(thing: object) -> ArgumentTypeError:
    return ArgumentTypeError(
        "not a regulariser",
        got=repr(thing),
        expected="one of " + ", ".join(REGULARIZERS) + ", or none",
    )
