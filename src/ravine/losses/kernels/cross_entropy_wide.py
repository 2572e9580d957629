"""Cross-entropy of rows of many classes: row by row, each in `LANES` partial results.

The partial results are what lets LLVM use vectors without being allowed to reorder sums, and they
keep the rounding error of a sum small.
"""

from __future__ import annotations

from math import inf
from typing import Any

from ravine.engine.kernel_language import (
    float64,
    int64,
    largest,
    part,
    part_any_zero,
    part_apart,
    part_reordered,
    prefetch,
    read,
    stack_bytes,
    write,
)
from ravine.engine.vector_formulas import exp_of_negative, log1p
from ravine.losses.kernels.cross_entropy_cpu import LANES
from ravine.losses.kernels.cross_entropy_rows import (
    class_weight,
    difference,
    product,
    row_factor,
    slope,
)

BLOCK = 1024
BLOCK_BYTES = BLOCK * 8

LINE = 64
"""Bytes of a line of the caches."""

STRIP, AHEAD = 256, 512
"""Logits whose exponentials are computed while lines for as many are on their way; how far ahead those are
that will be written.

Else memory rests while a row is computed, and the processor while the next one comes. Two cores, in turns,
rows of 1000 classes: 1.15 to 1.3 times as fast, of 3000 1.05 to 1.15, of 8192 1 to 1.1, of 32768 and of 100
the same. Strips of 64 and 128 are alike. Writing past the caches is not faster, with this or without.
"""


@part
def wide(
    head: Any, start: Any, stop: Any, stored: Any, number: Any, size: Any, soft: Any, exact: Any
) -> None:
    """Work on rows of many classes of ``size`` bytes.

    ``exact``: the gradient's row can hold exp_of_negative(d) for a while, which saves a second exp.
    """
    classes = head[2]
    epsilon = read(head[11], 0, float64)
    share, kept = number(epsilon / float64(classes)), number(1.0 - epsilon)
    scale = number(read(head[11], 1, float64))
    for row in range(start, stop):
        x, g = head[4] + row * classes * size, head[9] + row * classes * size
        if head[9] == 0:
            g = int64(0)
        factor = row_factor(head, row, number, soft)
        if factor == number(0):
            write(head[8], row, number(0), number)
            if g != 0:
                for k in range(classes):
                    write(g, k, number(0), stored)
            continue
        top = _maximum(x, classes, stored, number)
        others = _exponentials(x, g, classes, stored, number, top, exact, size)
        inverse = number(1) / (number(1) + others)
        chances = head[5] + row * classes * head[12]
        total = inner = d = a = number(0)
        weighted = soft or epsilon != 0.0
        if weighted:
            total, inner = _weigh(
                x, head[6], chances, classes, stored, number, top, share, kept, soft
            )
        target = int64(0)
        if not soft:
            target = read(head[5], row, int64)
            v, weight = read(x, target, stored), read(head[6], target, number)
            d = difference(v, top, number)
            a = kept * weight
            total += a
            inner += product(a, d, number)
            a += class_weight(v, weight, number(0), share, kept, number, False)
        write(head[8], row, factor * (total * log1p(others) - inner), number)
        if g == 0:
            continue
        factor *= scale
        if weighted:
            _weighted_slopes(
                x, g, head[6], chances, classes, stored, number, top, share, kept, soft, exact,
                size, total, others, inverse, factor,
            )  # fmt: skip
        else:
            _slopes(x, g, classes, stored, number, top, exact, size, factor * (total * inverse))
        if not soft:
            at_target = slope(exp_of_negative(d), a, total, others, inverse, number)
            write(g, target, factor * at_target, stored)


@part
def _full(start: Any, classes: Any) -> Any:
    """Return where the block of `LANES` at ``start`` begins: earlier, if it would pass the end.

    Some classes are visited twice then, which a maximum and an exp do not mind, and it spares them
    a remainder of up to 63 single numbers (half of the time for 1000 classes).
    """
    return min(start, classes - LANES)


@part_any_zero
def _maximum(x: Any, classes: Any, stored: Any, number: Any) -> Any:
    """Return the largest logit, NaN if one is."""
    result = number(-inf)
    for k in range(classes):
        result = largest(result, read(x, k, stored))
    return result


@part
def _exponentials(
    x: Any, g: Any, classes: Any, stored: Any, number: Any, top: Any, exact: Any, size: Any
) -> Any:
    """Return the sum of exp(d) over all classes but one at the top; leave exp(d) in g if exact."""
    row = classes * size
    if exact and g != 0:
        rest, ties = _exponentials_of(
            x, g, classes, stored, number, top, size, x + row, g + AHEAD * size
        )
        return rest + (ties - number(1))
    buffer = stack_bytes(BLOCK_BYTES)
    others, all_ties = number(0), number(-1)
    for start in range(0, classes, BLOCK):
        count = min(BLOCK, classes - start)
        here = x + start * size
        rest, ties = _exponentials_of(
            here, buffer, count, stored, number, top, size, here + row, int64(0)
        )
        others += rest
        all_ties += ties
    return others + all_ties


@part_apart  # else 5 % more for a row of 32768 classes
def _exponentials_of(
    x: Any, out: Any, count: Any, stored: Any, number: Any, top: Any, size: Any, read_soon: Any,
    written_soon: Any,
) -> Any:  # fmt: skip
    """Write exp(d) of ``count`` logits; return the sum of those below 1 and how many are 1.

    As one sum, small ones would lose their digits. ``read_soon`` and ``written_soon`` are addresses of
    as many logits, whose lines are asked for meanwhile, or 0.
    """
    if count < LANES or top - top != number(0):  # the top is infinite, or NaN
        for j in range(count):
            d = difference(read(x, j, stored), top, number)
            write(out, j, exp_of_negative(d), number)
        return _sums(out, 0, count, number)
    whole = count // LANES * LANES
    rest = ties = number(0)
    for start in range(0, whole, STRIP):
        length = min(STRIP, whole - start)
        _ask_for(read_soon, start * size, length * size, False)
        _ask_for(written_soon, start * size, length * size, True)
        more, more_ties = _finite_exponentials(x, out, start, length, stored, number, top)
        rest += more
        ties += more_ties
    if whole < count:
        begin = _full(whole, count)
        _finite_exponentials(x, out, begin, LANES, stored, number, top)
        more, more_ties = _sums(out, whole, count, number)
        rest += more
        ties += more_ties
    return rest, ties


@part
def _ask_for(address: Any, start: Any, size: Any, writes: Any) -> None:
    if address != 0:
        for place in range(start, start + size, LINE):
            prefetch(address + place, writes)


@part_reordered
def _finite_exponentials(
    x: Any, out: Any, begin: Any, count: Any, stored: Any, number: Any, top: Any
) -> Any:
    rest = ties = number(0)
    for j in range(count):
        e = exp_of_negative(read(x, begin + j, stored) - top)
        write(out, begin + j, e, number)
        tie = e == number(1)
        rest += number(0) if tie else e
        ties += number(1) if tie else number(0)
    return rest, ties


@part_reordered
def _sums(block: Any, start: Any, stop: Any, number: Any) -> Any:
    """Return the sum of what is not 1 and how many are 1."""
    rest = ties = number(0)
    for j in range(start, stop):
        e = read(block, j, number)
        tie = e == number(1)
        rest += number(0) if tie else e
        ties += number(1) if tie else number(0)
    return rest, ties


@part_reordered
def _weigh(
    x: Any, weights: Any, chances: Any, classes: Any, stored: Any, number: Any, top: Any,
    share: Any, kept: Any, soft: Any,
) -> Any:  # fmt: skip
    """Return the sums of a and of a d."""
    total = inner = number(0)
    for k in range(classes):
        v = read(x, k, stored)
        chance = read(chances, k, number) if soft else number(0)
        a = class_weight(v, read(weights, k, number), chance, share, kept, number, soft)
        total += a
        inner += product(a, difference(v, top, number), number)
    return total, inner


@part
def _slopes(
    x: Any, g: Any, classes: Any, stored: Any, number: Any, top: Any, exact: Any, size: Any,
    each: Any,
) -> None:  # fmt: skip
    """Write each * exp(d)."""
    if exact:
        for k in range(classes):
            write(g, k, each * read(g, k, stored), stored)
        return
    buffer = stack_bytes(BLOCK_BYTES)
    for start in range(0, classes, BLOCK):
        count = min(BLOCK, classes - start)
        here, there = x + start * size, g + start * size
        _exponentials_of(here, buffer, count, stored, number, top, size, int64(0), there)
        for j in range(count):
            write(g, start + j, each * read(buffer, j, number), stored)


@part
def _weighted_slopes(
    x: Any, g: Any, weights: Any, chances: Any, classes: Any, stored: Any, number: Any, top: Any,
    share: Any, kept: Any, soft: Any, exact: Any, size: Any, total: Any, others: Any,
    inverse: Any, factor: Any,
) -> None:  # fmt: skip
    # exp(d) is copied from the gradient, so that each loop has only one condition that does not
    # change; with two LLVM gives up on vectors (five times slower).
    buffer = stack_bytes(BLOCK_BYTES)
    for start in range(0, classes, BLOCK):
        count = min(BLOCK, classes - start)
        if exact:
            for j in range(count):
                write(buffer, j, number(read(g, start + j, stored)), number)
        else:
            here, there = x + start * size, g + start * size
            _exponentials_of(here, buffer, count, stored, number, top, size, int64(0), there)
        for j in range(count):
            k = start + j
            chance = read(chances, k, number) if soft else number(0)
            a = class_weight(
                read(x, k, stored), read(weights, k, number), chance, share, kept, number, soft
            )
            e = read(buffer, j, number)
            write(g, k, factor * slope(e, a, total, others, inverse, number), stored)
