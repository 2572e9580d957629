"""What values hyperparameters may have, by name; those of other names must only be finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

from ravine.engine.choice import BACKENDS
from ravine.errors import ArgumentError, ArgumentTypeError
from ravine.rules.rule import Bound
from ravine.schedules import Schedule


def _numbers(text: str, test: Callable[[Any], bool]) -> Bound:
    """Return the bound of what passes a test; True and False are no numbers."""
    return text, lambda x: not _is_condition(x) and test(x)


def _is_condition(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, tuple) and any(map(_is_condition, value)))


_NOT_NEGATIVE = _numbers("a number >= 0", lambda x: x >= 0)
_POSITIVE_OR_NONE = _numbers("a number > 0, or None", lambda x: x is None or x > 0)
_FRACTION = _numbers("a number in [0, 1)", lambda x: 0 <= x < 1)
_COUNT = _numbers("a whole number > 0", lambda x: x >= 1 and x == int(x))
_SIZE = _numbers("a whole number >= 0", lambda x: x >= 0 and x == int(x))
_FLAG: Bound = ("True or False", lambda x: isinstance(x, bool))

_ANY: Bound = ("a finite number", lambda _: True)

BOUNDS: dict[str, Bound] = {
    "lr": _numbers("a number >= 0, or a schedule", lambda x: x >= 0),
    "betas": _numbers("numbers in [0, 1)", lambda x: all(0 <= b < 1 for b in x)),
    "beta": _FRACTION,
    "beta1": _FRACTION,
    "beta2": _FRACTION,
    "alpha": _numbers("a number in [0, 1]", lambda x: 0 <= x <= 1),
    "eps": _NOT_NEGATIVE,
    "momentum": _NOT_NEGATIVE,
    "weight_decay": _NOT_NEGATIVE,
    "shampoo_beta": _FRACTION,
    "precondition_frequency": _COUNT,
    "max_precond_dim": _SIZE,
    "l1": _NOT_NEGATIVE,
    "l2": _NOT_NEGATIVE,
    "clip_norm": _POSITIVE_OR_NONE,
    "clip_value": _POSITIVE_OR_NONE,
    "average": _numbers("a number in [0, 1), or None", lambda x: x is None or 0 <= x < 1),
    "decay": (
        "'coupled', 'decoupled' (times lr) or 'independent' (of lr)",
        lambda x: x in ("coupled", "decoupled", "independent"),
    ),
    "backend": ("one of " + ", ".join(BACKENDS), lambda x: x in BACKENDS),
    "state_dtype": (
        "'float32', 'bfloat16' or 'int8'",
        lambda x: x in ("float32", "bfloat16", "int8"),
    ),
    "stochastic_rounding": _FLAG,
    "rounding_seed": _numbers(
        "a whole number in [0, 2^63)", lambda x: isinstance(x, int) and 0 <= x < 2**63
    ),
    "skip_nonfinite": _FLAG,
    "in_backward": _FLAG,
    "capturable": _FLAG,
    "maximize": _FLAG,
    "cautious": _FLAG,
    "nesterov": _FLAG,
    "centered": _FLAG,
    "amsgrad": _FLAG,
    "l1_proximal": _FLAG,
    "eps_inside_sqrt": _FLAG,
}


def _finite(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return bool(value.numel() == 1 and torch.isfinite(value).all())
    if isinstance(value, (list, tuple)):
        return all(_finite(x) for x in value)
    return not isinstance(value, float) or math.isfinite(value)


def check_bounds(
    options: Mapping[str, Any],
    *,
    where: str,
    defaults: Mapping[str, Any],
    free: Collection[str] = (),
    own: Mapping[str, Bound] | None = None,
) -> None:
    """Raise an error for the first option whose value cannot be used.

    Where the default is a tuple, as many values are expected. Names in ``free`` mean something of
    the rule's own and must only be finite, or what ``own`` says of them.
    """
    bounds = {**BOUNDS, **dict.fromkeys(free, _ANY), **(own or {})}
    for name, value in options.items():
        if isinstance(value, Schedule):
            continue
        expected, test = bounds.get(name, _ANY)
        count = len(defaults[name]) if isinstance(defaults[name], tuple) else None
        if count is not None:
            expected = f"{count} {expected.removeprefix('a finite ')}"
        try:
            good = _finite(value) and test(value) and (count is None or len(value) == count)
        except TypeError:
            raise ArgumentTypeError(
                f"{name} has a value of the wrong type",
                where=f"{where}, option {name}",
                got=f"{value!r} ({type(value).__name__})",
                expected=expected,
            ) from None
        if not good:
            raise ArgumentError(
                f"{name} has a value that cannot be used",
                where=f"{where}, option {name}",
                got=repr(value),
                expected=expected,
            )
