"""The multi-class hinge losses over rows on a GPU: the Triton kernel; `hinge_rows` says what is computed.

A program works on a tile of ``ROWS`` rows and ``COLUMNS`` classes. Of a row of more classes than that, tile
after tile is read once, and each thread keeps what it has seen in registers, so that the threads of a row
meet only once, after the last tile. Weston and Watkins's slopes are written with each tile but
for the target's, which is their sum, and is written at the end. Crammer and Singer's are all 0 but for two.

The gradient may lie where the scores do: the target's score is read before anything is written, and of a
tile each number before it is written, and never again.
"""

# mypy: ignore-errors
# ruff: noqa: SIM108
from __future__ import annotations

import triton
import triton.language as tl

from ravine.losses.kernels.row_tiles import difference, product, scores_at, write_slopes


@triton.jit
def _beyond(margin):
    """Return the margin where it is positive or NaN, else 0."""
    return tl.where(margin <= 0, 0.0, margin)


# --- Weston and Watkins --------------------------------------------------------------------------


@triton.jit
def _close(x, rival, x_own, MARGIN: tl.constexpr):
    margin = tl.full((), MARGIN, tl.float64).to(x.dtype)
    return tl.where(rival, _beyond(margin + difference(x, x_own[:, None])), 0.0)


@triton.jit
def _slopes(close, each, SQUARED: tl.constexpr):
    if SQUARED:
        slope = each[:, None] * (2.0 * close)
    else:
        slope = tl.broadcast_to(each[:, None], close.shape)
    return tl.where(close == 0, 0.0, slope)  # whatever the scale is, of rows that do not count too


@triton.jit
def _added(close, total, pull, SQUARED: tl.constexpr):
    """Return the sums of what is lost and of its slopes with those of another tile."""
    if SQUARED:
        lost, slope = close * close, close
    else:
        lost, slope = close, tl.where(close == 0, 0.0, 1.0).to(close.dtype)
    return total + _folded(lost, total), pull + _folded(slope, total)


@triton.jit
def _folded(tile, like):
    """Return the sums of neighbours, which one thread has, as many as there are in ``like``."""
    ROWS: tl.constexpr = like.shape[0]
    KEPT: tl.constexpr = like.shape[1]
    return tl.sum(tl.reshape(tile, (ROWS, KEPT, tile.shape[1] // KEPT)), axis=2)


@triton.jit
def _weston_watkins(
    scores, target, by_class, factor, losses, gradient, scale, arrived, rows, classes,
    SQUARED: tl.constexpr, MARGIN: tl.constexpr, WEIGHTED: tl.constexpr, FACTORED: tl.constexpr,
    SLOPES: tl.constexpr, AGAIN: tl.constexpr, NUMBER: tl.constexpr, ONE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row, real, own, times, x_own = _rows(
        scores, target, factor, rows, classes, FACTORED, NUMBER, ROWS
    )  # fmt: skip
    counts = times != 0
    first = (row * classes)[:, None]
    share = times.to(tl.float64) * (tl.full((), 1.0, tl.float64) / classes)
    if WEIGHTED:
        share *= tl.load(by_class + own, mask=counts, other=0.0).to(tl.float64)
    each = x_own  # where there are no slopes nobody asks
    if SLOPES:
        each = (share * _scale(scale, arrived, AGAIN)).to(NUMBER)
    # Two sums for each score of a tile would be 97 registers a thread, where these are 62.
    KEPT: tl.constexpr = COLUMNS if ONE or COLUMNS < 4 else COLUMNS // 4
    total = tl.zeros((ROWS, KEPT), NUMBER)
    pull = total
    if ONE:
        column, place, inside, x = _tile(scores, 0, first, counts, classes, NUMBER, COLUMNS)
        rival = inside & (column[None, :] != own[:, None])
        close = _close(x, rival, x_own, MARGIN)
        total, pull = _added(close, total, pull, SQUARED)
    else:
        for start in range(0, classes, COLUMNS):
            column, place, inside, x = _tile(
                scores, start, first, counts, classes, NUMBER, COLUMNS
            )  # fmt: skip
            rival = inside & (column[None, :] != own[:, None])
            close = _close(x, rival, x_own, MARGIN)
            total, pull = _added(close, total, pull, SQUARED)
            if SLOPES:
                inside = (column < classes)[None, :] & real[:, None]
                write_slopes(gradient, place, _slopes(close, each, SQUARED), inside)

    loss = (share * tl.sum(total, axis=1).to(tl.float64)).to(NUMBER)
    tl.store(losses + row, loss, mask=real)
    if SLOPES:
        if SQUARED:
            pull *= 2.0
        at_own = 0.0 - product(tl.sum(pull, axis=1), each)
        lost = loss != loss  # no slope of such a row is a number
        if ONE:
            slope = _slopes(close, each, SQUARED)
            slope = tl.where(column[None, :] == own[:, None], at_own[:, None], slope)
            slope = tl.where(lost[:, None], loss[:, None], slope)
            inside = (column < classes)[None, :] & real[:, None]
            write_slopes(gradient, place, slope, inside)
        else:
            tl.debug_barrier()  # after another warp's 0 at this place
            # NaN too where the sweep below writes it, which does not wait for this.
            write_slopes(gradient, row * classes + own, tl.where(lost, loss, at_own), real)
            if tl.max(lost.to(tl.int32), axis=0) != 0:
                for start in range(0, classes, COLUMNS):
                    column = start + tl.arange(0, COLUMNS)
                    inside = (column < classes)[None, :] & (real & lost)[:, None]
                    slope = tl.broadcast_to(loss[:, None], (ROWS, COLUMNS))
                    write_slopes(gradient, first + column[None, :], slope, inside)


# --- Crammer and Singer --------------------------------------------------------------------------


@triton.jit
def _higher(x, column, rival, top, at, classes):
    """Return the highest rival so far and where it is, place by place; NaN is the highest."""
    better = rival & ((at == classes) | (x > top) | ((x != x) & (top == top)))
    return tl.where(better, x, top), tl.where(better, column[None, :], at)


@triton.jit
def _crammer_singer(
    scores, target, factor, losses, gradient, scale, arrived, rows, classes,
    FACTORED: tl.constexpr, SLOPES: tl.constexpr, AGAIN: tl.constexpr, NUMBER: tl.constexpr,
    ONE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row, real, own, times, x_own = _rows(
        scores, target, factor, rows, classes, FACTORED, NUMBER, ROWS
    )  # fmt: skip
    counts = times != 0
    first = (row * classes)[:, None]
    top = tl.full((ROWS, COLUMNS), -float("inf"), NUMBER)
    at = tl.zeros((ROWS, COLUMNS), tl.int32) + classes  # no rival yet
    if ONE:
        column, _, inside, x = _tile(scores, 0, first, counts, classes, NUMBER, COLUMNS)
        top, at = _higher(x, column, inside & (column[None, :] != own[:, None]), top, at, classes)
    else:
        for start in range(0, classes, COLUMNS):
            column, _, inside, x = _tile(
                scores, start, first, counts, classes, NUMBER, COLUMNS
            )  # fmt: skip
            rival = inside & (column[None, :] != own[:, None])
            top, at = _higher(x, column, rival, top, at, classes)
    unknown = top != top
    rival_nan = tl.min(tl.where(unknown, at, classes), axis=1)
    highest = tl.max(tl.where(unknown, -float("inf"), top), axis=1)
    rival = tl.min(tl.where(top == highest[:, None], at, classes), axis=1)
    is_nan = rival_nan < classes
    rival = tl.where(is_nan, rival_nan, rival)
    highest = tl.where(is_nan, float("nan"), highest)

    # A class alone has no rival, and none that is infinite like it.
    d = tl.where(rival < classes, difference(highest, x_own), highest - x_own)
    beyond = _beyond(1.0 + d)
    tl.store(losses + row, tl.where(counts, times * beyond, 0.0).to(NUMBER), mask=real)
    if SLOPES:
        slope = times * _scale(scale, arrived, AGAIN).to(NUMBER)
        slope = tl.where(beyond == beyond, slope, beyond)
        slope = tl.where((rival < classes) & (beyond != 0), slope, 0.0)
        if ONE:
            _write_two(gradient, first, column, own, rival, slope, real, classes)
        else:
            for start in range(0, classes, COLUMNS):
                column = start + tl.arange(0, COLUMNS)
                _write_two(gradient, first, column, own, rival, slope, real, classes)


@triton.jit
def _write_two(gradient, first, column, own, rival, slope, real, classes):
    """Write the slope of the rival, that of the target, and 0 elsewhere."""
    found = tl.where(column[None, :] == own[:, None], 0.0 - slope[:, None], 0.0)
    found = tl.where(column[None, :] == rival[:, None], slope[:, None], found)
    inside = (column < classes)[None, :] & real[:, None]
    write_slopes(gradient, first + column[None, :], found, inside)


# --- both ----------------------------------------------------------------------------------------


@triton.jit
def _rows(
    scores, target, factor, rows, classes,
    FACTORED: tl.constexpr, NUMBER: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Return the rows of a program: which are there, their targets, weights and targets' scores."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    real = row < rows
    if FACTORED:
        times = tl.load(factor + row, mask=real, other=0.0)
    else:
        times = tl.where(real, 1.0, 0.0).to(NUMBER)
    own = tl.load(target + row, mask=real, other=0)
    x_own = scores_at(scores, row * classes + own, times != 0, NUMBER)
    tl.debug_barrier()  # before another warp writes where the scores are
    return row, real, own, times, x_own


@triton.jit
def _tile(scores, start, first, counts, classes, NUMBER: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the classes of a tile, where they are, which are there, and their scores."""
    column = start + tl.arange(0, COLUMNS)
    inside = (column < classes)[None, :] & counts[:, None]
    place = first + column[None, :]
    return column, place, inside, scores_at(scores, place, inside, NUMBER)


@triton.jit
def _scale(scale, arrived, AGAIN: tl.constexpr):
    each = tl.load(scale)
    if AGAIN:
        each = each * tl.load(arrived).to(tl.float64)
    return each


@triton.jit(do_not_specialize=["rows"])
def kernel(
    scores, target, by_class, factor, losses, gradient, scale, arrived, rows, classes,
    P: tl.constexpr, MARGIN: tl.constexpr, WEIGHTED: tl.constexpr, FACTORED: tl.constexpr,
    SLOPES: tl.constexpr, AGAIN: tl.constexpr, NUMBER: tl.constexpr, ONE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Do the rows of a program; ``AGAIN``: only if something else than 1 has arrived."""
    wanted = True
    if AGAIN:
        wanted = tl.load(arrived) != 1.0
    if wanted:
        if P == 0:
            _crammer_singer(
                scores, target, factor, losses, gradient, scale, arrived, rows, classes,
                FACTORED, SLOPES, AGAIN, NUMBER, ONE, ROWS, COLUMNS,
            )  # fmt: skip
        else:
            _weston_watkins(
                scores, target, by_class, factor, losses, gradient, scale, arrived, rows, classes,
                P == 2, MARGIN, WEIGHTED, FACTORED, SLOPES, AGAIN, NUMBER, ONE, ROWS, COLUMNS,
            )  # fmt: skip
