"""What the kernels over rows add up: the weights of the targets that count, and the losses."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from ravine.engine.intrinsics import read


@numba.njit(error_model="numpy")
def scan_targets(
    targets: Any, rows: Any, classes: Any, ignored: Any, factors: Any, weights: Any, number: Any
) -> Any:
    """Return how many classes are out of range, and the sum of the weights of the rows that count.

    All but the counts and the ignored class are addresses; those of the weights may be 0.
    """
    wrong, amount = np.int64(0), np.float64(0)
    for row in range(rows):
        k = read(targets, row, np.int64)
        if k == ignored:
            continue
        if k < 0 or k >= classes:
            wrong += 1
            continue
        counted = np.float64(1)
        if factors != 0:
            counted = np.float64(read(factors, row, number))
        if weights != 0:
            counted *= np.float64(read(weights, k, number))
        amount += counted
    return wrong, amount


@numba.njit(error_model="numpy", fastmath={"reassoc"})
def total_of(values: Any, count: Any, number: Any) -> Any:
    """Return the sum of ``count`` numbers at an address in float64, always in the same order."""
    total = np.float64(0)
    for i in range(count):
        total += np.float64(read(values, i, number))
    return total
