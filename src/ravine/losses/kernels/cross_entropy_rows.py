"""Cross-entropy over rows on the CPU: value and gradient in one visit to each row.

With d the logits less their maximum, S the sum of exp(d) over all classes but one that has the
maximum, and a the weight of each class in the row (target, smoothing and class weights together):

    loss = sum_k a_k (log1p(S) - d_k)            gradient_k = (sum a) exp(d_k) / (1 + S) - a_k

Both terms of the loss are >= 0, so nothing cancels, and log1p(S) keeps the digits of a row that is
almost certain. Where exp(d) = 1 and S < 1 the gradient is (sum a - a_k) - (sum a) S / (1 + S):
that does not take p - 1 of a p near 1. Logits equal to the maximum count as equal, infinite ones
too. Smoothing gives nothing to a class whose logit is -inf.

Few classes make a row too short for vectors. Up to `NARROW` of them, `LANES` rows are turned on
their side, and one vector holds a class of many rows; above, one row is many vectors.

A kernel finds its work behind the address of `HEAD` int64 numbers:

====  ==========================================================================================
 0    the next block of rows (a shared counter, set to 0 before each run)
 1    rows
 2    classes
 3    rows in a block
 4    address of the logits, row after row
 5    address of the targets: int64 classes, or rows of probabilities
 6    address of the class weights, one per class (ones where there are none)
 7    address of the sample weights, one per row, or 0
 8    address of the losses, one per row
 9    address of the gradient, or 0 where it is not wanted
10    the class that is ignored
11    address of two float64: label smoothing, factor of the gradient
12    bytes of a number of the arithmetic
====  ==========================================================================================

Weights, probabilities and losses have the type of the arithmetic (`number`), which is float64 for
float64 logits and float32 for all others.
"""

from __future__ import annotations

from math import inf
from typing import Any

from ravine.engine.kernel_language import int64, part, read
from ravine.losses.kernels.cross_entropy_cpu import LANES, NARROW

BUFFER = NARROW * LANES * 8  # bytes of a float64 for each class and lane
LANE = LANES * 8  # bytes of a float64 for each lane


@part
def row_factor(head: Any, row: Any, number: Any, soft: Any) -> Any:
    """Return the sample weight of a row, or 0 for a row that must have no influence."""
    if not soft and read(head[5], row, int64) == head[10]:
        return number(0)
    return read(head[7], row, number) if head[7] != 0 else number(1)


@part
def difference(x: Any, maximum: Any, number: Any) -> Any:
    """Return x - maximum; equal ones differ by 0, infinite ones too."""
    return number(0) if x == maximum else x - maximum


@part
def product(a: Any, d: Any, number: Any) -> Any:
    """Return a * d, where nothing of an infinity is nothing."""
    return number(0) if a == number(0) else a * d


@part
def class_weight(
    x: Any, weight: Any, chance: Any, share: Any, kept: Any, number: Any, soft: Any
) -> Any:
    """Return the weight of a class in its row, without what an integer target adds.

    ``share`` is epsilon / classes and ``kept`` 1 - epsilon. Smoothing gives nothing to an
    impossible class.
    """
    smooth = number(0) if x == number(-inf) else share * weight
    return smooth + weight * (kept * chance) if soft else smooth


@part
def slope(e: Any, a: Any, total: Any, others: Any, inverse: Any, number: Any) -> Any:
    """Return the gradient of one logit from e = exp(d)."""
    certain = (total - a) - total * (others * inverse)
    usual = total * (e * inverse) - a
    return certain if (e == number(1) and others < number(1)) else usual
