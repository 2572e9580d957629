"""What can be named in an expression, and how a name, an object or a factory becomes the thing."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from ravine.errors import ArgumentError, ArgumentTypeError, unknown_option
from ravine.expression import parse
from ravine.losses import LOSSES
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
    return re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", class_name).lower()


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
        choice = parse(choice, {**SCHEDULES, **OPTIMIZERS}, kind="optimizer")
    if isinstance(choice, type) and issubclass(choice, Optimizer):
        choice = functools.partial(choice)
    if isinstance(choice, torch.optim.Optimizer) or not callable(choice):
        raise ArgumentTypeError(
            "the optimizer is not one that can be made for the task's weights",
            got=repr(choice),
            expected='an expression such as "adam(lr=1e-3)", or a function of the weights',
            do="write functools.partial(Adam, lr=1e-3), or lambda params: Adam(params, lr=1e-3)",
        )
    if isinstance(choice, functools.partial) and (
        isinstance(choice.func, type) and issubclass(choice.func, Optimizer)
    ):
        for name, value in options.items():
            if name in choice.keywords and choice.keywords[name] != value:
                raise ArgumentError(
                    f"{name} is given twice",
                    got=f"{name}={choice.keywords[name]!r} in the optimizer, {value!r} among the "
                    "regularisers",
                    do="leave one out",
                )
        made = OptimizerChoice(choice.func, **{**choice.keywords, **options})
        return made, repr(made)
    if options:
        raise ArgumentError(
            f"{', '.join(options)} cannot be given to an optimizer that is not Ravine's",
            got=repr(choice),
            do="use an optimizer of ravine.optim",
        )
    return choice, getattr(choice, "__qualname__", repr(choice))


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
    if options:
        function = getattr(type(choice), "function", None)
        known = getattr(function, "hyperparameters", {})
        for name in options:
            if not isinstance(choice, LossModule) or name not in known:
                raise unknown_option(f"loss {choice!r}", name, known)
        choice = type(choice)(**{**choice.hyperparameters, **options})
    if isinstance(choice, LossModule):
        return choice, choice.expression()
    return choice, getattr(choice, "__qualname__", repr(choice))


def choose_regularizers(choices: Iterable[Any]) -> list[Any]:
    """Return the regularisers of expressions and objects."""
    if isinstance(choices, str):
        choices = [choices]
    chosen = [
        parse(choice, REGULARIZERS, kind="regularizer") if isinstance(choice, str) else choice
        for choice in choices
    ]
    for one in chosen:
        if not hasattr(one, "prepare_model"):
            raise ArgumentTypeError(
                "not a regulariser",
                got=repr(one),
                expected="one of " + ", ".join(REGULARIZERS),
            )
    return chosen
