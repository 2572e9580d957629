"""What may be given to an optimizer without its name: lr, and what torch takes so, in its order."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ravine.engine.equation import REQUIRED
from ravine.errors import ArgumentTypeError, UnknownOptionError


def torchs_order(name: str) -> dict[str, Any]:
    """Return what torch's optimizer of this name takes by position, with its defaults; or lr."""
    theirs = getattr(torch.optim, name, None)
    if not (isinstance(theirs, type) and issubclass(theirs, torch.optim.Optimizer)):
        return {"lr": REQUIRED}
    return {
        parameter.name: parameter.default
        for parameter in inspect.signature(theirs).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.name != "params"
    }


def by_name(
    owner: str, order: Mapping[str, Any], values: Sequence[Any], named: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values given by position with their names.

    Raises:
        ArgumentTypeError: there are too many. UnknownOptionError: one is given by name too.
    """
    if len(values) > len(order):
        raise ArgumentTypeError(
            f"{owner} takes {len(order)} option{'s' if len(order) != 1 else ''} without name",
            got=f"{len(values)}: {', '.join(map(repr, values))}",
            expected=f"params, {', '.join(order)}",
            do=f"write {owner}(params, lr, option=value)",
        )
    given = dict(zip(order, values, strict=False))
    for name in given.keys() & named.keys():
        raise UnknownOptionError(
            f"{owner} got {name!r} twice",
            got=f"{given[name]!r} by position and {named[name]!r} by name",
        )
    return given


def of(order: Mapping[str, Any], options: Mapping[str, Any]) -> inspect.Signature:
    """Return the signature of an optimizer class, for `inspect` and editors.

    What torch has and we do not keep (``foreach``) is shown only where an option follows it.
    """
    last = max(k for k, name in enumerate(order) if name in options)
    shown = list(order)[: last + 1]
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    keyword = inspect.Parameter.KEYWORD_ONLY
    by_name = sorted(options.items(), key=lambda item: item[1] is not REQUIRED)
    return inspect.Signature(
        [
            inspect.Parameter("params", positional),
            *(
                inspect.Parameter(name, positional, default=options.get(name, order[name]))
                for name in shown
            ),
            *(
                inspect.Parameter(name, keyword, default=default)
                for name, default in by_name
                if name not in shown
            ),
        ]
    )
