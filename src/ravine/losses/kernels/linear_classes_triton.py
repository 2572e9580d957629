"""What a linear head does with the logits of some classes, on a GPU: Triton kernels, one launch a chunk.

`linear_seen` says what is computed. A program works on ``ROWS`` rows and goes through their logits
``COLUMNS`` at a time, as that of `cross_entropy_triton`. What has been seen of a row before waits in
memory, some 44 bytes, from launch to launch.

Slopes lie where the logits did, in half as many bytes: a row of slopes begins where its row of logits
began. What a program writes it has read before, behind a barrier.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from ravine.engine.gpu_functions import divide, tanh
from ravine.losses.kernels.cross_entropy_triton import (
    added,
    exp_of_negative,
    slope_of,
    weights_of,
)
from ravine.losses.kernels.row_tiles import difference, write_slopes


@triton.jit
def _logits(logits, bias, place, column, inside, classes, BIASED: tl.constexpr):
    """Return logits with bias, -inf where there are none. ``column``: among all classes."""
    x = tl.load(logits + place, mask=inside, other=-float("inf"))
    if BIASED:
        x += tl.load(bias + column, mask=column < classes, other=0.0)
    return x


@triton.jit
def _capped(x, inside, cap, CAPPED: tl.constexpr):
    if CAPPED:
        x = cap * tanh(divide(x, tl.full(x.shape, cap, tl.float32)))
        x = tl.where(inside, x, -float("inf"))
    return x


@triton.jit
def _slope_of_cap(x, cap):
    """1 - tanh^2 has no digits left where tanh is almost 1."""
    e = exp_of_negative(-2 * tl.abs(divide(x, tl.full(x.shape, cap, tl.float32))))
    return divide(4 * e, (1 + e) * (1 + e))


@triton.jit
def _own(target, row, real, start, width):
    """Return the class of each row if it is one of these, else -1."""
    own = tl.load(target + row, mask=real, other=-1)
    return tl.where((own >= start) & (own < start + width), own, -1)


@triton.jit(do_not_specialize=["rows", "start"])
def look(
    logits, target, bias, class_weight, tops, rests, ties_of, totals, inners, owns,
    rows, width, stride, target_stride, start, classes, cap,
    EPSILON: tl.constexpr, SOFT: tl.constexpr, WEIGHTED: tl.constexpr, BIASED: tl.constexpr,
    CAPPED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Add some classes to what has been seen of the rows."""
    PLAIN: tl.constexpr = not SOFT and EPSILON == 0
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    real = row < rows
    top = tl.load(tops + row, mask=real, other=0.0)
    rest = tl.load(rests + row, mask=real, other=0.0)
    ties = tl.load(ties_of + row, mask=real, other=0.0)
    total, inner, own = rest, rest, row
    if not PLAIN:
        total = tl.load(totals + row, mask=real, other=0.0)
        inner = tl.load(inners + row, mask=real, other=0.0)
    if not SOFT:
        own = _own(target, row, real, start, width)
    if PLAIN:
        here = own >= 0
        x_own = _logits(logits, bias, row * stride + own - start, own, here, classes, BIASED)
        tl.store(owns + row, _capped(x_own, here, cap, CAPPED), mask=here)
    for first in range(0, width, COLUMNS):
        local = first + tl.arange(0, COLUMNS)
        column = start + local
        inside = (local < width)[None, :] & real[:, None]
        place = (row * stride)[:, None] + local[None, :]
        x = _logits(logits, bias, place, column[None, :], inside, classes, BIASED)
        x = _capped(x, inside, cap, CAPPED)
        a = x
        if not PLAIN:
            a = weights_of(
                x, target, class_weight, (row * target_stride)[:, None] + local[None, :], column, own,
                inside, classes, EPSILON, SOFT, WEIGHTED, tl.float32,
            )  # fmt: skip
        top, rest, ties, total, inner = added(x, a, top, rest, ties, total, inner, PLAIN, False)
    ties = tl.where(
        top == -float("inf"), 1.0 * (start + width), ties
    )  # without what fills up a tile
    tl.store(tops + row, top, mask=real)
    tl.store(rests + row, rest, mask=real)
    tl.store(ties_of + row, ties, mask=real)
    if not PLAIN:
        tl.store(totals + row, total, mask=real)
        tl.store(inners + row, inner, mask=real)


@triton.jit(do_not_specialize=["rows", "start"])
def turn(
    logits, target, bias, class_weight, tops, others_of, inverses, totals, by_loss, by_lse, at_owns,
    slopes, rows, width, stride, target_stride, slopes_stride, start, classes, cap,
    EPSILON: tl.constexpr, SOFT: tl.constexpr, WEIGHTED: tl.constexpr, BIASED: tl.constexpr,
    CAPPED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write the slopes by the logits of some classes where these are."""
    PLAIN: tl.constexpr = not SOFT and EPSILON == 0
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    real = row < rows
    top = tl.load(tops + row, mask=real, other=0.0)[:, None]
    inverse = tl.load(inverses + row, mask=real, other=0.0)[:, None]
    total = tl.load(totals + row, mask=real, other=0.0)[:, None]
    loss = tl.load(by_loss + row, mask=real, other=0.0)[:, None]
    lse = tl.load(by_lse + row, mask=real, other=0.0)[:, None] * inverse
    own, others, at_own = row, top, top
    if not SOFT:
        own = _own(target, row, real, start, width)
    if PLAIN:
        at_own = tl.load(at_owns + row, mask=real, other=0.0)[:, None]
    else:
        others = tl.load(others_of + row, mask=real, other=0.0)[:, None]
    for first in range(0, width, COLUMNS):
        local = first + tl.arange(0, COLUMNS)
        column = start + local
        inside = (local < width)[None, :] & real[:, None]
        place = (row * stride)[:, None] + local[None, :]
        given = _logits(logits, bias, place, column[None, :], inside, classes, BIASED)
        x = _capped(given, inside, cap, CAPPED)
        e = exp_of_negative(difference(x, top))
        if PLAIN:
            slope = tl.where(column[None, :] == own[:, None], at_own, loss * (total * inverse) * e)
        else:
            a = weights_of(
                x, target, class_weight, (row * target_stride)[:, None] + local[None, :], column, own,
                inside, classes, EPSILON, SOFT, WEIGHTED, tl.float32,
            )  # fmt: skip
            slope = loss * slope_of(e, a, total, others, inverse)
        slope += lse * e
        if CAPPED:
            slope *= _slope_of_cap(given, cap)
        tl.debug_barrier()  # before a warp writes where another reads
        place = (row * slopes_stride)[:, None] + local[None, :]
        write_slopes(slopes, place, slope, inside)
