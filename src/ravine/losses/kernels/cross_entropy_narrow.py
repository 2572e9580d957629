"""Cross-entropy of rows of few classes: `LANES` rows on their side, a class of them in a vector."""

from __future__ import annotations

from math import inf
from typing import Any

from ravine.engine.kernel_language import (
    float64,
    int64,
    part,
    part_apart,
    read,
    stack_bytes,
    turn,
    write,
)
from ravine.engine.vector_formulas import exp_of_negative, log1p
from ravine.losses.kernels.cross_entropy_cpu import LANES
from ravine.losses.kernels.cross_entropy_rows import (
    BUFFER,
    LANE,
    class_weight,
    difference,
    product,
    row_factor,
    slope,
)


@part
def narrow(
    head: Any, start: Any, stop: Any, stored: Any, number: Any, soft: Any, size: Any, side: Any
) -> None:
    """Work on rows of few classes of ``size`` bytes, `LANES` rows at a time, class by class.

    ``side``: of the tiles that are turned at once; 0 where there are none.
    """
    # Not a beside x: they would be a multiple of 4096 bytes apart, and 4 % slower in float64.
    x = stack_bytes(BUFFER)
    top, others, total = stack_bytes(LANE), stack_bytes(LANE), stack_bytes(LANE)
    a = stack_bytes(BUFFER)
    inner, ties, factor = stack_bytes(LANE), stack_bytes(LANE), stack_bytes(LANE)
    classes = head[2]
    for first in range(start, stop, LANES):
        count = min(LANES, stop - first)
        if side != 0:
            _in_tiles(
                head[4] + first * classes * size, classes * size, x, LANES * size,
                count, classes, number, size, side,
            )  # fmt: skip
        _turn(head, first, count, stored, number, soft, x, a, factor, side)
        _losses(head, first, count, number, x, a, top, others, total, inner, ties, factor)
        if head[9] == 0:
            continue
        scale = number(read(head[11], 1, float64))
        for r in range(LANES):
            write(ties, r, number(1) / (number(1) + read(others, r, number)), number)
        for k in range(classes):
            for r in range(LANES):
                i = k * LANES + r
                g = slope(
                    read(x, i, number), read(a, i, number), read(total, r, number),
                    read(others, r, number), read(ties, r, number), number,
                )  # fmt: skip
                weight = read(factor, r, number)
                write(x, i, number(0) if weight == number(0) else g * (scale * weight), number)
        if side != 0:
            _in_tiles(
                x, LANES * size, head[9] + first * classes * size, classes * size,
                classes, count, number, size, side,
            )  # fmt: skip
        else:
            for r in range(count):
                for k in range(classes):
                    g = read(x, k * LANES + r, number)
                    write(head[9], (first + r) * classes + k, g, stored)


@part
def _in_tiles(
    source: Any, source_step: Any, target: Any, target_step: Any, count: Any, length: Any,
    number: Any, size: Any, side: Any,
) -> None:  # fmt: skip
    """Turn ``count`` lines of ``length`` numbers on their side."""
    for i in range(0, count, side):
        for j in range(0, length, side):
            here = source + i * source_step + j * size
            there = target + j * target_step + i * size
            turn(here, source_step, there, target_step, count - i, length - j, number)


@part_apart  # where LLVM sees that x and a are not the head it scatters vectors: 15 % slower
def _turn(
    head: Any, first: Any, count: Any, stored: Any, number: Any, soft: Any, x: Any, a: Any,
    factor: Any, side: Any,
) -> None:  # fmt: skip
    """Lay out the weights of the classes in each row (a) and of the rows (factor), and logits (x)
    where there are no tiles.
    """
    classes = head[2]
    epsilon = read(head[11], 0, float64)
    share, kept = number(epsilon / float64(classes)), number(1.0 - epsilon)
    for r in range(LANES):
        write(factor, r, number(0), number)
    for r in range(count):
        write(factor, r, row_factor(head, first + r, number, soft), number)
        for k in range(classes):
            i = (first + r) * classes + k
            if side == 0:
                write(x, k * LANES + r, read(head[4], i, stored), number)
            if soft:
                write(a, k * LANES + r, read(head[5], i, number), number)
    for k in range(classes):
        for r in range(count, LANES):
            write(x, k * LANES + r, number(0), number)
            write(a, k * LANES + r, number(0), number)
        weight = read(head[6], k, number)
        for r in range(LANES):
            i = k * LANES + r
            chance = read(a, i, number) if soft else number(0)
            share_here = class_weight(read(x, i, number), weight, chance, share, kept, number, soft)
            write(a, i, share_here, number)
    if not soft:
        for r in range(count):
            target = read(head[5], first + r, int64)
            if target != head[10]:
                i = target * LANES + r
                write(a, i, read(a, i, number) + kept * read(head[6], target, number), number)


@part
def _losses(
    head: Any, first: Any, count: Any, number: Any, x: Any, a: Any, top: Any, others: Any,
    total: Any, inner: Any, ties: Any, factor: Any,
) -> None:  # fmt: skip
    """Write the losses; leave exp_of_negative(d) in x and the sums per row in others and total."""
    classes = head[2]
    for r in range(LANES):
        write(top, r, number(-inf), number)
        write(others, r, number(0), number)
        write(total, r, number(0), number)
        write(inner, r, number(0), number)
        write(ties, r, number(-1), number)
    for k in range(classes):
        for r in range(LANES):
            v, highest = read(x, k * LANES + r, number), read(top, r, number)
            write(top, r, v if v > highest else highest, number)
    for k in range(classes):
        for r in range(LANES):
            i = k * LANES + r
            d = difference(read(x, i, number), read(top, r, number), number)
            e = exp_of_negative(d)
            tie = d == number(0)
            weight = read(a, i, number)
            write(x, i, e, number)
            write(others, r, read(others, r, number) + (number(0) if tie else e), number)
            one = number(1) if tie else number(0)
            write(ties, r, read(ties, r, number) + one, number)
            write(total, r, read(total, r, number) + weight, number)
            write(inner, r, read(inner, r, number) + product(weight, d, number), number)
    for r in range(LANES):
        rest = read(others, r, number) + read(ties, r, number)
        write(others, r, rest, number)
        loss = read(total, r, number) * log1p(rest) - read(inner, r, number)
        write(top, r, loss, number)
    for r in range(count):
        weight = read(factor, r, number)
        loss = number(0) if weight == number(0) else weight * read(top, r, number)
        write(head[8], first + r, loss, number)
