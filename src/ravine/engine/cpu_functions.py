"""The engine's functions as Numba sees them, for the generated CPU kernels.

Those with a polynomial of their own (`exp` and the like) are in `ravine.engine.vector_math`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba.extending

__all__ = [
    "maximum", "minimum", "negation", "power", "power2", "power3", "power4", "sqrt", "where",
]  # fmt: skip

register_jitable: Callable[[Any], Any] = numba.extending.register_jitable

sqrt = math.sqrt


@register_jitable
def where(condition: Any, a: Any, b: Any) -> Any:
    return a if condition else b


@register_jitable
def maximum(a: Any, b: Any) -> Any:
    return a if (a >= b or a != a) else b


@register_jitable
def minimum(a: Any, b: Any) -> Any:
    return a if (a <= b or a != a) else b


@register_jitable
def negation(x: Any) -> Any:
    return not x


@register_jitable
def power(x: Any, y: Any) -> Any:
    return x**y


@register_jitable
def power2(x: Any) -> Any:
    return x * x


@register_jitable
def power3(x: Any) -> Any:
    return x * x * x


@register_jitable
def power4(x: Any) -> Any:
    square = x * x
    return square * square
