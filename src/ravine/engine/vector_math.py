"""The functions of `ravine.engine.vector_formulas` that kernels compiled by Numba call, and its tests.

Numba's own ``math.exp`` is a call into the C library for one number at a time. Integers are taken as
float64. A literal given to one of these is a float64: type it, as everywhere in a float32 loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numba.extending

from ravine.engine import vector_formulas as formulas
from ravine.engine.lanes import Lane

__all__ = [
    "exp", "exp_of_negative", "expm1", "log", "log1p", "sigmoid", "tanh",
]  # fmt: skip

types: Any = numba.types


def callable_of(name: str, formula: Callable[[Lane], Lane], doc: str) -> Any:
    """Return the intrinsic that emits ``formula``."""

    def typing(typing_context: Any, x: Any) -> Any:
        kind = types.float64 if isinstance(x, types.Integer) else x
        if kind not in (types.float32, types.float64):
            return None

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return formula(Lane(builder, arguments[0])).value

        return kind(kind), code

    typing.__name__ = typing.__qualname__ = name
    typing.__doc__ = doc
    return numba.extending.intrinsic(typing)


exp = callable_of("exp", formulas.exp, "e to the power x.")
exp_of_negative = callable_of(
    "exp_of_negative",
    formulas.exp_of_negative,
    "exp of x <= 0 in half of the time: 0 where it would be less than 0.7 of a normal number.",
)
expm1 = callable_of("expm1", formulas.expm1, "exp(x) - 1, to the last digit near 0.")
log = callable_of("log", formulas.log, "The natural logarithm; -inf at 0, NaN below.")
log1p = callable_of("log1p", formulas.log1p, "log(1 + x), to the last digit near 0.")
tanh = callable_of("tanh", formulas.tanh, "The hyperbolic tangent.")
sigmoid = callable_of("sigmoid", formulas.sigmoid, "1 / (1 + exp(-x)).")
