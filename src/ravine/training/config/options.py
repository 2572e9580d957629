"""What training can be told: read from the signature of `ravine.train`, so that it never lags behind."""

from __future__ import annotations

import collections.abc
import inspect
import os
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ravine.errors import ConfigError

__all__ = ["Option", "options_of"]

_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "text", list: "a list"}
_LISTS = (collections.abc.Iterable, collections.abc.Sequence, list, tuple)


@dataclass(frozen=True)
class Option:
    """An argument of training, as far as a file or ``--set`` can give it.

    Attributes:
        name: of the argument.
        default: of the signature; None where there is none or the task decides.
        kinds: the plain types that it takes; empty for what only Python can make (listeners).
        choice: whether it takes an expression, and therefore also a table.
        path: whether it names a place on the disk.
    """

    name: str
    default: Any
    kinds: frozenset[type]
    choice: bool
    path: bool

    def takes(self, value: object) -> bool:
        """Tell whether a value of a file is of a type that the argument has."""
        kind = type(value)
        return kind in self.kinds or (kind is int and float in self.kinds)

    def check(self, value: Any, where: str) -> Any:
        """Return the value, or raise ConfigError for one of another type."""
        if self.takes(value):
            return value
        words = [word for kind, word in _WORDS.items() if kind in self.kinds]
        raise ConfigError(
            f"{self.name} has a value of the wrong type",
            where=where,
            got=f"{value!r}",
            expected=" or ".join(words + ["a table with a name"] * self.choice),
        )


def options_of(function: Callable[..., Any]) -> dict[str, Option]:
    """Return the arguments of a function that a file can give, by name.

    >>> def train(task: str, *, epochs: int | None = None, call: Callable[[], None] | None = None):
    ...     "Train."
    >>> [(name, sorted(k.__name__ for k in o.kinds)) for name, o in options_of(train).items()]
    [('task', ['str']), ('epochs', ['int'])]
    """
    hints = typing.get_type_hints(function)
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        leaves = set(_leaves(hints.get(name, Any)))
        kinds = {leaf for leaf in leaves if leaf in _WORDS}
        choice, path = Any in leaves, Path in leaves
        if choice or path:
            kinds.add(str)
        if kinds:
            default = None if parameter.default is parameter.empty else parameter.default
            found[name] = Option(name, default, frozenset(kinds), choice, path)
    return found


def _leaves(hint: Any) -> Iterator[Any]:
    """Take a type apart into what a file could hold: plain types, list, Path and Any."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        for part in typing.get_args(hint):
            yield from _leaves(part)
    elif origin is typing.Literal:
        yield from (type(value) for value in typing.get_args(hint))
    elif origin in _LISTS:
        inner = set(_leaves(typing.get_args(hint)[0]))
        if inner & {*_WORDS, Any}:  # a list of what a file cannot hold is not for a file either
            yield list
            yield from inner & {Any}
    elif hint is Path or origin is os.PathLike:
        yield Path
    else:
        yield hint
