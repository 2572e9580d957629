"""Sums over places of a softmax and a target, and their slopes: the parts of the CPU kernels.

With d the logits of a place less their maximum, S the sum of exp(d) over all classes but one that has the
maximum, p = exp(d) / (1 + S) and 1 - p = ((1 - exp(d)) + S) / (1 + S), which has every digit of a p near 1:

    right_k = sum p_k y_k        excess_k = sum p_k (1 - y_k)        missed_k = sum (1 - p_k) y_k

Where the slope by p_k of what comes of them is H_k = y_k own_k + (1 - y_k) rest_k, and m is a class that
has the maximum, the slope by a logit is

    p_k ((H_k - H_m) - sum_j p_j (H_j - H_m))

All terms of that sum are small where p_m is near 1, so that the slope of m too keeps its digits.

Torch's layout has the places of a class side by side: `LANES` of them are worked on class by class. Where
the classes of a place are side by side (``last``), as in channels_last, the places are turned on their side.
"""

from __future__ import annotations

from math import inf
from typing import Any

from ravine.engine.kernel_language import (
    float64,
    int32,
    int64,
    part,
    part_reordered,
    read,
    stack_bytes,
    write,
)
from ravine.engine.vector_formulas import exp_of_negative

LANES = 64
"""Places side by side."""

LANE = LANES * 8  # bytes of a float64 for each of them
STRANGE, LEFT_OUT = -1, -2  # in the place of a class that is out of range, or ignored


@part
def add_places(
    head: Any, x: Any, logits: Any, targets: Any, start: Any, stop: Any, sums: Any,
    stored: Any, size: Any, kind: Any, number: Any, width: Any, soft: Any, last: Any,
) -> None:  # fmt: skip
    """Add places of a sample to the three sums of each class, which are float64."""
    own, others, inverse = stack_bytes(LANE), stack_bytes(LANE), stack_bytes(LANE)
    classes = head[5]
    for first in range(start, stop, LANES):
        count = min(LANES, stop - first)
        _exponentials(
            head, x, logits, targets, first, count, own, others, inverse,
            stored, size, kind, number, soft, last,
        )  # fmt: skip
        if soft:
            for k in range(classes):
                y = targets + (k * head[6] + first) * width
                right, excess, missed = _of_chances(
                    x + k * LANES * width, y, others, inverse, count, number
                )
                _add(sums, k, right)
                _add(sums, classes + k, excess)
                _add(sums, 2 * classes + k, missed)
            continue
        # Place by place what is a class's own: of 19 classes a fifth quicker than class by class, as above.
        for r in range(count):
            target = int64(read(own, r, int32))
            if target < 0:
                continue
            i = target * LANES + r
            e, share = read(x, i, number), read(inverse, r, number)
            _add(sums, target, float64(e * share))
            miss = ((number(1) - e) + read(others, r, number)) * share
            _add(sums, 2 * classes + target, float64(miss))
            write(x, i, number(0), number)  # what is left is excess
        for k in range(classes):
            _add(sums, classes + k, _excess(x + k * LANES * width, inverse, count, number))


@part
def _add(sums: Any, i: Any, amount: Any) -> None:
    write(sums, i, read(sums, i, float64) + amount, float64)


@part_reordered
def _excess(x: Any, inverse: Any, count: Any, number: Any) -> Any:
    total = float64(0)
    for r in range(count):
        total += float64(read(x, r, number) * read(inverse, r, number))
    return total


@part
def _of_chances(x: Any, y: Any, others: Any, inverse: Any, count: Any, number: Any) -> Any:
    """Return the three sums of a class whose target are probabilities."""
    p, miss, z = stack_bytes(LANE), stack_bytes(LANE), stack_bytes(LANE)
    for r in range(count):
        e, share = read(x, r, number), read(inverse, r, number)
        chance = read(y, r, number)
        write(p, r, e * share * chance, number)
        write(z, r, e * share * (number(1) - chance), number)
        write(miss, r, ((number(1) - e) + read(others, r, number)) * share * chance, number)
    return _total(p, count, number), _total(z, count, number), _total(miss, count, number)


@part_reordered
def _total(x: Any, count: Any, number: Any) -> Any:
    total = float64(0)
    for r in range(count):
        total += float64(read(x, r, number))
    return total


@part
def _exponentials(
    head: Any, x: Any, logits: Any, targets: Any, first: Any, count: Any,
    own: Any, others: Any, inverse: Any,
    stored: Any, size: Any, kind: Any, number: Any, soft: Any, last: Any,
) -> None:  # fmt: skip
    """Leave exp(d) in x, the target's classes in own, S in others, and 1 / (1 + S) in inverse.

    That is 0 for places that are left out.
    """
    top, ties = stack_bytes(LANE), stack_bytes(LANE)
    classes = head[5]
    for r in range(count):
        write(top, r, number(-inf), number)
        write(others, r, number(0), number)
        write(ties, r, number(-1), number)
        if not soft:
            target = read(targets, first + r, kind)
            known = int32(target) if (target >= 0) & (target < classes) else int32(STRANGE)
            write(own, r, int32(LEFT_OUT) if target == head[11] else known, int32)
    if last:
        for r in range(count):
            for k in range(classes):
                write(x, k * LANES + r, read(logits, (first + r) * classes + k, stored), number)
    for k in range(classes):
        of_class = logits + (k * head[6] + first) * size
        for r in range(count):
            v = read(x, k * LANES + r, number) if last else read(of_class, r, stored)
            highest = read(top, r, number)
            if not soft:
                v = number(0) if read(own, r, int32) == LEFT_OUT else v
            write(x, k * LANES + r, v, number)
            write(top, r, v if v > highest else highest, number)
    for k in range(classes):
        for r in range(count):
            v, highest = read(x, k * LANES + r, number), read(top, r, number)
            tie = v == highest  # infinite ones too
            e = exp_of_negative(number(0) if tie else v - highest)
            write(x, k * LANES + r, e, number)
            write(others, r, read(others, r, number) + (number(0) if tie else e), number)
            write(ties, r, read(ties, r, number) + (number(1) if tie else number(0)), number)
    for r in range(count):
        rest = read(others, r, number) + read(ties, r, number)
        write(others, r, rest, number)
        share = number(1) / (number(1) + rest)
        if not soft:
            share = number(0) if read(own, r, int32) == LEFT_OUT else share
        write(inverse, r, share, number)


@part
def write_slopes(
    head: Any, x: Any, logits: Any, targets: Any, start: Any, stop: Any, arrived: Any, gradient: Any,
    stored: Any, size: Any, kind: Any, number: Any, width: Any, soft: Any, last: Any,
) -> None:  # fmt: skip
    """Write the slopes of the logits of places; ``arrived``: own of each class, then rest."""
    own, others, inverse = stack_bytes(LANE), stack_bytes(LANE), stack_bytes(LANE)
    level, mean = stack_bytes(LANE), stack_bytes(LANE)
    classes = head[5]
    for first in range(start, stop, LANES):
        count = min(LANES, stop - first)
        _exponentials(
            head, x, logits, targets, first, count, own, others, inverse,
            stored, size, kind, number, soft, last,
        )  # fmt: skip
        for r in range(count):
            write(level, r, number(0), number)
            write(mean, r, number(0), number)
        for k in range(classes):
            at_own, at_rest = read(arrived, k, number), read(arrived, classes + k, number)
            y = targets + (k * head[6] + first) * width
            for r in range(count):
                h = _slope(own, y, k, r, at_own, at_rest, number, soft)
                # A class so near to the maximum that exp(d) is 1 serves as well.
                is_top = read(x, k * LANES + r, number) == number(1)
                write(level, r, h if is_top else read(level, r, number), number)
        for k in range(classes):
            at_own, at_rest = read(arrived, k, number), read(arrived, classes + k, number)
            y = targets + (k * head[6] + first) * width
            for r in range(count):
                h = _slope(own, y, k, r, at_own, at_rest, number, soft) - read(level, r, number)
                write(mean, r, read(mean, r, number) + read(x, k * LANES + r, number) * h, number)
        for r in range(count):
            write(mean, r, read(mean, r, number) * read(inverse, r, number), number)
        for k in range(classes):
            at_own, at_rest = read(arrived, k, number), read(arrived, classes + k, number)
            i = k * head[6] + first
            y, of_class = targets + i * width, gradient + i * size
            for r in range(count):
                h = _slope(own, y, k, r, at_own, at_rest, number, soft) - read(level, r, number)
                p = read(x, k * LANES + r, number) * read(inverse, r, number)
                slope = p * (h - read(mean, r, number))
                if not soft:  # whatever arrives
                    slope = number(0) if read(own, r, int32) == LEFT_OUT else slope
                if last:
                    write(x, k * LANES + r, slope, number)
                else:
                    write(of_class, r, slope, stored)
        if last:
            for r in range(count):
                for k in range(classes):
                    slope = read(x, k * LANES + r, number)
                    write(gradient, (first + r) * classes + k, slope, stored)


@part
def _slope(
    own: Any, y: Any, k: Any, r: Any, at_own: Any, at_rest: Any, number: Any, soft: Any
) -> Any:
    """Return the slope by the probability of class k at place r."""
    if soft:
        chance = read(y, r, number)
        return chance * at_own + (number(1) - chance) * at_rest
    return at_own if read(own, r, int32) == int32(k) else at_rest


@part
def add_up(sums: Any, out: Any, samples: Any, chunks: Any, count: Any, number: Any) -> None:
    """Add the sums of the chunks of each sample, in their order, to those of the first; write these."""
    for sample in range(samples):
        total = sums + sample * chunks * count * 8
        for chunk in range(1, chunks):
            for j in range(count):
                _add(total, j, read(total + chunk * count * 8, j, float64))
        for j in range(count):
            write(out, sample * count + j, read(total, j, float64), number)
