"""Cross-entropy over rows on a GPU: the Triton kernel; `cross_entropy_rows` says what is computed.

A program works on a tile of ``ROWS`` rows and ``COLUMNS`` classes. A row of more classes than that is
swept twice, tile by tile: once for its maximum and what is added up, once for the gradient, when much
of it is in the cache still. Else the tile stays in registers, and each logit is read once.

What is added up is relative to the largest logit so far, and is moved down when a larger one comes.
Those few numbers a row are float64, so that the moves cost no digits. Not so in a single tile, where
nothing is moved: of short rows every thread has several, and float64 would take most of the time.

Without smoothing and probabilities (``PLAIN``) only one class of a row has a weight: it is worked out
once a row, and what is left for each logit are 25 instructions of the first sweep and 20 of the second,
counted in the code for sm_90. An H200 has time for some 48 while it reads and writes 8 bytes.

The gradient may lie where the logits do: the logit of the target is read before anything is written,
and of a tile each number is read before it is written, and never again.
"""

# mypy: ignore-errors
# ruff: noqa: SIM108, PLR0915
from __future__ import annotations

import triton
import triton.language as tl

from ravine.engine.gpu_functions import divide, log1p
from ravine.losses.kernels.row_tiles import difference, product, scores_at, write_slopes

LOG2E = tl.constexpr(1.4426950216293335)  # of float32; what is missing:
LOG2E_LOW = tl.constexpr(1.925963033500011519e-08)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def exp_of_negative(d):
    """Return exp(d) for d <= 0, or NaN: a third of the instructions of the engine's exp.

    The hardware's power of two is good to 2^-22, but not its argument: that is corrected afterwards.
    """
    if d.dtype == tl.float32:
        d = tl.where(d < -150.0, -150.0, d)
        rounded = d * LOG2E
        lost = tl.fma(d, tl.full(d.shape, LOG2E, tl.float32), -rounded) + d * LOG2E_LOW
        power = tl.exp2(rounded)
        result = power + power * (lost * LN2)
    else:
        result = tl.exp(d)
    return result


@triton.jit
def _weights(
    x, target, by_class, place, column, own, inside, classes,
    EPSILON: tl.constexpr, SOFT: tl.constexpr, WEIGHTED: tl.constexpr, NUMBER: tl.constexpr,
):  # fmt: skip
    """Return the weight of each class of a tile in its row."""
    share = (tl.full((), EPSILON, tl.float64) / classes).to(NUMBER)
    kept = (1.0 - tl.full((), EPSILON, tl.float64)).to(NUMBER)
    one = tl.full((), 1.0, NUMBER)
    if WEIGHTED:
        one = tl.load(by_class + column, mask=column < classes, other=0.0)[None, :]
    if SOFT:
        a = one * (kept * tl.load(target + place, mask=inside, other=0.0))
    else:
        a = tl.where(column[None, :] == own[:, None], kept * one, 0.0)
    if EPSILON != 0:
        a += tl.where(x == -float("inf"), 0.0, share * one)  # an impossible class gets nothing
    return a


@triton.jit
def _tile(
    scores, target, by_class, start, first, own, counts, classes,
    EPSILON: tl.constexpr, SOFT: tl.constexpr, WEIGHTED: tl.constexpr, NUMBER: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """Return the classes of a tile, where its logits are, these, and the weights of the classes."""
    column = start + tl.arange(0, COLUMNS)
    inside = (column < classes)[None, :] & counts[:, None]
    place = first + column[None, :]
    x = scores_at(scores, place, inside, NUMBER)
    a = x  # of a plain row nobody asks
    if SOFT or EPSILON != 0:
        a = _weights(
            x, target, by_class, place, column, own, inside, classes,
            EPSILON, SOFT, WEIGHTED, NUMBER,
        )  # fmt: skip
    return column, place, x, a


@triton.jit
def _added(x, a, top, rest, ties, total, inner, PLAIN: tl.constexpr, FIRST: tl.constexpr):
    """Add a tile: return the largest logit so far and, relative to it, what is added up."""
    # Whether NaN is a maximum or not, it reaches the sums by its own exponential.
    highest = tl.max(x, axis=1)
    if not FIRST:
        highest = tl.where(top > highest, top, highest)
        fall = difference(top, highest).to(rest.dtype)
        moved = fall < 0
        rest = (rest + tl.where(moved, ties, 0.0)) * tl.exp(fall)
        ties = tl.where(moved, 0.0, ties)
        if not PLAIN:
            inner += product(total, fall)
    level = x == highest[:, None]
    d = x - highest[:, None]
    rest += tl.sum(tl.where(level, 0.0, exp_of_negative(d)), axis=1).to(rest.dtype)
    ties += tl.sum(tl.where(level, 1, 0), axis=1).to(rest.dtype)
    if not PLAIN:
        inner += tl.sum(product(a, tl.where(level, 0.0, d)), axis=1).to(rest.dtype)
        total += tl.sum(a, axis=1).to(rest.dtype)
    return highest, rest, ties, total, inner


@triton.jit
def _slope(e, a, total, others, inverse):
    certain = (total - a) - total * (others * inverse)
    return tl.where((e == 1) & (others < 1), certain, total * (e * inverse) - a)


@triton.jit
def _write(
    gradient, place, inside, x, a, column, own, top, others, inverse, total, each, at_own,
    PLAIN: tl.constexpr,
):  # fmt: skip
    """Write the gradient of a tile. ``each``: of a plain row, its factor times total / (1 + S)."""
    e = exp_of_negative(difference(x, top[:, None]))
    if PLAIN:
        slope = tl.where(column[None, :] == own[:, None], at_own[:, None], each[:, None] * e)
    else:
        slope = each[:, None] * _slope(
            e, a, total[:, None], others[:, None], inverse[:, None]
        )  # fmt: skip
    write_slopes(gradient, place, slope, inside)


@triton.jit
def _rows(
    scores, target, by_class, factor, losses, gradient, scale, arrived, rows, classes, ignored,
    EPSILON: tl.constexpr, SOFT: tl.constexpr, WEIGHTED: tl.constexpr, FACTORED: tl.constexpr,
    SLOPES: tl.constexpr, AGAIN: tl.constexpr, NUMBER: tl.constexpr, ONE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    PLAIN: tl.constexpr = not SOFT and EPSILON == 0
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    real = row < rows
    if FACTORED:
        times = tl.load(factor + row, mask=real, other=0.0)
    else:
        times = tl.where(real, 1.0, 0.0).to(NUMBER)
    own = row
    if not SOFT:
        own = tl.load(target + row, mask=real, other=0)
        times = tl.where(own == ignored, 0.0, times)
    counts = times != 0  # of the others nothing is read
    first = (row * classes)[:, None]

    top = tl.full((ROWS,), -float("inf"), NUMBER)
    if ONE:
        rest = tl.zeros((ROWS,), NUMBER)
    else:
        rest = tl.zeros((ROWS,), tl.float64)
    ties, total, inner = rest, rest, rest
    x_own = top
    if PLAIN:
        x_own = scores_at(scores, row * classes + own, counts, NUMBER)
        tl.debug_barrier()  # before another warp writes where the logits are
        total += 1.0
        if WEIGHTED:
            total = tl.load(by_class + own, mask=counts, other=0.0).to(rest.dtype)
    if ONE:
        column, place, x, a = _tile(
            scores, target, by_class, 0, first, own, counts, classes,
            EPSILON, SOFT, WEIGHTED, NUMBER, COLUMNS,
        )  # fmt: skip
        top, rest, ties, total, inner = _added(x, a, top, rest, ties, total, inner, PLAIN, True)
    else:
        for start in range(0, classes, COLUMNS):
            _, _, x, a = _tile(
                scores, target, by_class, start, first, own, counts, classes,
                EPSILON, SOFT, WEIGHTED, NUMBER, COLUMNS,
            )  # fmt: skip
            top, rest, ties, total, inner = _added(
                x, a, top, rest, ties, total, inner, PLAIN, False
            )  # fmt: skip

    ties = tl.where(top == -float("inf"), 1.0 * classes, ties)  # without what fills up the tile
    others = rest + (ties - 1.0)
    if PLAIN:
        inner = product(total, difference(x_own, top).to(rest.dtype))
    loss = times.to(rest.dtype) * (total * log1p(others) - inner)
    tl.store(losses + row, tl.where(counts, loss, 0.0).to(NUMBER), mask=real)
    if SLOPES:
        # A row that does not count has slopes of 0 times something finite, whatever the scale is.
        each = tl.load(scale)
        if AGAIN:
            each = each * tl.load(arrived).to(tl.float64)
        each = tl.where(counts, times * each.to(NUMBER), 0.0)
        inverse = divide(tl.full((ROWS,), 1.0, rest.dtype), 1.0 + others).to(NUMBER)
        others, total = others.to(NUMBER), total.to(NUMBER)
        at_own = each
        if PLAIN:
            e_own = exp_of_negative(difference(x_own, top))
            at_own = each * _slope(e_own, total, total, others, inverse)
            each = each * (total * inverse)
        if ONE:
            inside = (column < classes)[None, :] & real[:, None]
            _write(
                gradient, place, inside, x, a, column, own,
                top, others, inverse, total, each, at_own, PLAIN,
            )  # fmt: skip
        else:
            for start in range(0, classes, COLUMNS):
                column, place, x, a = _tile(
                    scores, target, by_class, start, first, own, counts, classes,
                    EPSILON, SOFT, WEIGHTED, NUMBER, COLUMNS,
                )  # fmt: skip
                inside = (column < classes)[None, :] & real[:, None]
                _write(
                    gradient, place, inside, x, a, column, own,
                    top, others, inverse, total, each, at_own, PLAIN,
                )  # fmt: skip


@triton.jit(do_not_specialize=["rows", "ignored"])
def kernel(
    scores, target, by_class, factor, losses, gradient, scale, arrived, rows, classes, ignored,
    EPSILON: tl.constexpr, SOFT: tl.constexpr, WEIGHTED: tl.constexpr, FACTORED: tl.constexpr,
    SLOPES: tl.constexpr, AGAIN: tl.constexpr, NUMBER: tl.constexpr, ONE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Do the rows of a program; ``AGAIN``: only if something else than 1 has arrived."""
    wanted = True
    if AGAIN:
        wanted = tl.load(arrived) != 1.0
    if wanted:
        _rows(
            scores, target, by_class, factor, losses, gradient, scale, arrived, rows, classes, ignored,
            EPSILON, SOFT, WEIGHTED, FACTORED, SLOPES, AGAIN, NUMBER, ONE, ROWS, COLUMNS,
        )  # fmt: skip
