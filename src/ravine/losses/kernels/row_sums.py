"""What the kernels over rows add up: the weights of the targets that count, and the losses."""

from __future__ import annotations

from typing import Any

from ravine.engine.kernel_language import float64, int64, part_as_written, part_reordered, read


@part_as_written
def scan_targets(
    targets: Any, rows: Any, classes: Any, ignored: Any, factors: Any, weights: Any, number: Any
) -> Any:
    """Return how many classes are out of range, and the sum of the weights of the rows that count.

    All but the counts and the ignored class are addresses; those of the weights may be 0.
    """
    wrong, amount = int64(0), float64(0)
    for row in range(rows):
        k = read(targets, row, int64)
        if k == ignored:
            continue
        if k < 0 or k >= classes:
            wrong += 1
            continue
        counted = float64(1)
        if factors != 0:
            counted = float64(read(factors, row, number))
        if weights != 0:
            counted *= float64(read(weights, k, number))
        amount += counted
    return wrong, amount


@part_reordered
def total_of(values: Any, count: Any, number: Any) -> Any:
    """Return the sum of ``count`` numbers at an address in float64, always in the same order."""
    total = float64(0)
    for i in range(count):
        total += float64(read(values, i, number))
    return total
