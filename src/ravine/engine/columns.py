"""The functions of the host on columns: one number for each tensor, in an array of float64.

A rule with norms of tensors (LAMB) has numbers of its own for each tensor. Computed tensor by tensor
they took 2 us each, three times what the rest of a small tensor's step takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ravine.engine.functions import HOST

Column = Any  # a number, or an array of them


def _on_columns(name: str, of_arrays: Callable[..., Any]) -> Callable[..., Column]:
    of_numbers = HOST[name]

    def function(*arguments: Column) -> Column:
        if any(isinstance(one, np.ndarray) for one in arguments):
            with np.errstate(all="ignore"):
                return of_arrays(*arguments)
        return of_numbers(*arguments)

    function.__name__ = name
    return function


def _sigmoid(x: Column) -> Column:
    z = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + z), z / (1 + z))


def _raise_to(a: Column, b: Column) -> Column:
    return np.where((a == 0) & (b < 0), np.inf, np.power(a, b))


_OF_ARRAYS: dict[str, Callable[..., Any]] = {
    "sqrt": np.sqrt,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "log1p_of_fraction": np.log1p,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "sign": np.sign,
    "abs": np.abs,
    "where": np.where,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "divide": np.divide,
    "raise_to": _raise_to,
}

COLUMNS: dict[str, Callable[..., Column]] = {
    name: _on_columns(name, of_arrays) for name, of_arrays in _OF_ARRAYS.items()
}
"""What `HOST` has, for numbers and columns."""
