"""The engine's functions on one number, as instructions on a `Lane`; see `ravine.engine.functions`."""

from __future__ import annotations

from collections.abc import Callable

from ravine.engine import vector_formulas
from ravine.engine.lanes import Lane, chosen


def sqrt(x: Lane) -> Lane:
    return x.root()


def power(x: Lane, y: Lane) -> Lane:
    return x.power(y)


def power2(x: Lane) -> Lane:
    return x * x


def power3(x: Lane) -> Lane:
    return x * x * x


def power4(x: Lane) -> Lane:
    square = x * x
    return square * square


def sign(x: Lane) -> Lane:
    below = chosen(x.builder, x < 0.0, x.constant(-1.0).value, x.value)
    return Lane(x.builder, chosen(x.builder, x > 0.0, x.constant(1.0).value, below))


def maximum(a: Lane, b: Lane) -> Lane:
    return a.where(a.builder.or_(a >= b, a.is_nan()), b)


def minimum(a: Lane, b: Lane) -> Lane:
    return a.where(a.builder.or_(a <= b, a.is_nan()), b)


FORMULAS: dict[str, Callable[..., Lane]] = {
    "abs": abs,
    **{f.__name__: f for f in (sqrt, power, power2, power3, power4, sign, maximum, minimum)},
    **{
        name: getattr(vector_formulas, name)
        for name in ("exp", "expm1", "log", "log1p", "log1p_of_fraction", "sigmoid", "tanh")
    },
}
"""Name in a generated source -> what puts it in place."""
