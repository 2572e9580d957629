"""The two multi-class hinge losses over rows on the CPU: value and gradient in one visit to each row.

With x_y the score of the target, m a margin and [z]+ the larger one of z and 0:

    Crammer-Singer:    loss = [1 + max over k != y of x_k - x_y]+
    Weston-Watkins:    loss = w_y / K  sum over k != y of [m + x_k - x_y]+ ^ p

The difference comes first: 1 + 1e9 is 1e9. Equal scores differ by 0, infinite ones too. At the kink the
slope is 0, and of equal rivals the first one has it. The classes before and after the target are two
loops, so that no score is compared with the target's place.

A kernel finds its work behind the address of `HEAD` int64 numbers:

====  ==========================================================================================
 0    the next block of rows (a shared counter, set to 0 before each run)
 1    rows
 2    classes
 3    rows in a block
 4    address of the scores, row after row
 5    address of the targets, int64
 6    address of the sample weights, one per row, or 0
 7    address of w, one per class, or 0
 8    address of the losses, one per row
 9    address of the gradient, or 0 where it is not wanted
10    address of two float64: factor of the gradient, margin
====  ==========================================================================================

Weights and losses have the type of the arithmetic (`number`).
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
    part_reordered,
    read,
    write,
)

HEAD = 11
"""Numbers in the table that a kernel is given."""

BLOCK = 128
"""Classes of which the largest is found at once: where it is is then looked for in one block."""

SUMMED = 1024
"""Classes that are added up in the type of the arithmetic; such sums are added in float64."""


@part
def difference(x: Any, own: Any, number: Any) -> Any:
    """Return x - own; equal ones differ by 0, infinite ones too."""
    return number(0) if x == own else x - own


@part
def beyond(margin: Any, number: Any) -> Any:
    """Return the margin where it is positive or NaN, else 0."""
    return number(0) if margin <= number(0) else margin


# --- Weston and Watkins --------------------------------------------------------------------------


@part
def weston_watkins(head: Any, row: Any, stored: Any, number: Any, size: Any, squared: Any) -> None:
    """Work on a row of scores of ``size`` bytes; ``squared``: p is 2."""
    classes = head[2]
    x, g = head[4] + row * classes * size, head[9] + row * classes * size
    factor = number(1)
    if head[6] != 0:
        factor = read(head[6], row, number)
    if factor == number(0):
        write(head[8], row, number(0), number)
        if head[9] != 0:
            _fill(g, classes, number(0), stored)
        return
    target = read(head[5], row, int64)
    own, margin = read(x, target, stored), number(read(head[10], 1, float64))
    times = float64(factor) / float64(classes)
    if head[7] != 0:
        times *= float64(read(head[7], target, number))
    if head[9] == 0:
        total, _ = _all_rivals(
            x, int64(0), target, classes, stored, number, own, margin, number(0), squared, False
        )
        write(head[8], row, number(times * total), number)
        return
    each = number(times * read(head[10], 0, float64))
    total, pull = _all_rivals(
        x, g, target, classes, stored, number, own, margin, each, squared, True
    )
    loss, back = number(times * total), number(pull)
    write(head[8], row, loss, number)
    write(g, target, number(0) if back == number(0) else -(each * back), stored)
    if loss != loss:
        _fill(g, classes, loss, stored)


@part
def _all_rivals(
    x: Any, g: Any, target: Any, classes: Any, stored: Any, number: Any, own: Any, margin: Any,
    each: Any, squared: Any, slopes: Any,
) -> Any:  # fmt: skip
    """Return the sums over the rivals of what is lost and of its slopes; write those times ``each``."""
    total, pull = _rivals(x, g, 0, target, stored, number, own, margin, each, squared, slopes)
    more, pulled = _rivals(
        x, g, target + 1, classes, stored, number, own, margin, each, squared, slopes
    )
    return total + more, pull + pulled


@part
def _rivals(
    x: Any, g: Any, begin: Any, end: Any, stored: Any, number: Any, own: Any, margin: Any,
    each: Any, squared: Any, slopes: Any,
) -> Any:  # fmt: skip
    total = pull = float64(0)
    for start in range(begin, end, SUMMED):
        stop = min(start + SUMMED, end)
        if squared:
            lost, pulled = _squares(x, g, start, stop, stored, number, own, margin, each, slopes)
        else:
            lost, pulled = _lines(x, g, start, stop, stored, number, own, margin, each, slopes)
        total += float64(lost)
        pull += float64(pulled)
    return total, pull


@part_reordered
def _lines(
    x: Any, g: Any, begin: Any, end: Any, stored: Any, number: Any, own: Any, margin: Any,
    each: Any, slopes: Any,
) -> Any:  # fmt: skip
    total = pull = number(0)
    for k in range(begin, end):
        close = beyond(margin + difference(read(x, k, stored), own, number), number)
        total += close
        if slopes:
            pull += number(0) if close == number(0) else number(1)
            write(g, k, number(0) if close == number(0) else each, stored)
    return total, pull


@part_reordered
def _squares(
    x: Any, g: Any, begin: Any, end: Any, stored: Any, number: Any, own: Any, margin: Any,
    each: Any, slopes: Any,
) -> Any:  # fmt: skip
    total = pull = number(0)
    for k in range(begin, end):
        close = beyond(margin + difference(read(x, k, stored), own, number), number)
        total += close * close
        if slopes:
            pull += number(2) * close
            write(g, k, number(0) if close == number(0) else each * (number(2) * close), stored)
    return total, pull


@part
def _fill(g: Any, classes: Any, value: Any, stored: Any) -> None:
    for k in range(classes):
        write(g, k, value, stored)


# --- Crammer and Singer --------------------------------------------------------------------------


@part
def crammer_singer(head: Any, row: Any, stored: Any, number: Any, size: Any) -> None:
    """Work on a row of scores of ``size`` bytes."""
    classes = head[2]
    x, g = head[4] + row * classes * size, head[9] + row * classes * size
    factor = number(1)
    if head[6] != 0:
        factor = read(head[6], row, number)
    target = read(head[5], row, int64)
    rival, highest = _rival(x, classes, target, stored, number)
    own = read(x, target, stored)
    # A class alone has no rival, and none that is infinite like it.
    d = difference(highest, own, number) if rival >= 0 else highest - own
    margin = number(1) + d
    loss = beyond(margin, number)
    write(head[8], row, number(0) if factor == number(0) else factor * loss, number)
    if head[9] == 0:
        return
    _fill(g, classes, number(0), stored)
    if rival >= 0 and factor != number(0) and loss != number(0):
        slope = factor * number(read(head[10], 0, float64)) if loss == loss else loss
        write(g, rival, slope, stored)
        write(g, target, -slope, stored)


@part
def _rival(x: Any, classes: Any, target: Any, stored: Any, number: Any) -> Any:
    """Return where the first of the largest rivals is, and its score; -1 and -inf if there is none."""
    block, top = _best_block(x, 0, target, int64(-1), number(-inf), stored, number)
    block, top = _best_block(x, target + 1, classes, block, top, stored, number)
    return _first(x, block, classes, top, stored), top


@part
def _best_block(
    x: Any, begin: Any, end: Any, known: Any, highest: Any, stored: Any, number: Any
) -> Any:
    """Return where the block starts that has the first of the largest scores, and that; NaN is it."""
    block, top = known + 0, highest + number(0)
    for start in range(begin, end, BLOCK):
        found = _largest(x, start, min(start + BLOCK, end), stored, number)
        if block < 0 or found > top or (found != found and top == top):
            block, top = start, found
    return block, top


@part_any_zero
def _largest(x: Any, begin: Any, end: Any, stored: Any, number: Any) -> Any:
    result = number(-inf)
    for k in range(begin, end):
        result = largest(result, read(x, k, stored))
    return result


@part
def _first(x: Any, begin: Any, end: Any, wanted: Any, stored: Any) -> Any:
    """Return where a number is first, or NaN if that is wanted; ``begin`` if it is negative."""
    if begin >= 0:
        for k in range(begin, end):
            v = read(x, k, stored)
            if v == wanted or (v != v and wanted != wanted):
                return k
    return begin
