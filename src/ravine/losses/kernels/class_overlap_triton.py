"""Sums over places of a softmax and a target, and their slopes, on a GPU: the Triton kernels.

`class_overlap_places` says what is computed. A program works on tiles of all ``CLASSES``, filled up to a
power of two, and ``PLACES`` places, either of which lie side by side in memory. A tile stays in registers:
each logit is read once on the way there, and once on the way back.

The sums of a tile are those of its few places; they are added up in float64.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from ravine.engine.gpu_functions import divide
from ravine.losses.kernels.cross_entropy_triton import exp_of_negative
from ravine.losses.kernels.row_tiles import difference, scores_at, write_slopes


@triton.jit
def _shares(
    scores, target, counts, sample, first, classes, places, ignored,
    SOFT: tl.constexpr, LAST: tl.constexpr, COUNTED: tl.constexpr, NUMBER: tl.constexpr,
    CLASSES: tl.constexpr, PLACES: tl.constexpr,
):  # fmt: skip
    """Return where a tile lies, and of it p, 1 - p, y, which logits are the largest, which places count.

    What is read where a place is left out does not count: p and 1 - p are 0 there.
    """
    k = tl.arange(0, CLASSES)
    r = first + tl.arange(0, PLACES)
    real = (k < classes)[:, None]
    kept = r < places
    if COUNTED:
        kept = r < tl.where(tl.load(counts + sample) != 0, places, 0)
    if LAST:  # the classes of a place are side by side
        place = (sample * places + r)[None, :] * classes + k[:, None]
    else:
        place = (sample * classes + k)[:, None] * places + r[None, :]
    inside = real & kept[None, :]
    if SOFT:
        y = tl.load(target + place, mask=inside, other=0.0)
    else:
        own = tl.load(target + sample * places + r, mask=kept, other=0)
        kept = kept & (own != ignored)
        own = tl.where((own >= 0) & (own < classes), own, -1).to(tl.int32)
        y = tl.where(own[None, :] == k[:, None], 1.0, 0.0).to(NUMBER)
    # Ignored places are read, too: with a mask that may differ from place to place no load is a wide one.
    x = scores_at(scores, place, inside, NUMBER)
    if not SOFT:
        x = tl.where(kept[None, :], x, -float("inf"))
    top = tl.max(x, axis=0)[None, :]
    level = (x == top) & real  # infinite ones too
    e = tl.where(real, exp_of_negative(difference(x, top)), 0.0)
    others = tl.sum(tl.where(level, 0.0, e), axis=0)
    others += (tl.sum(tl.where(level, 1, 0), axis=0) - 1).to(NUMBER)
    share = divide(tl.full((PLACES,), 1.0, NUMBER), 1.0 + others)
    share = tl.where(kept, share, 0.0)[None, :]
    p = e * share
    miss = ((1.0 - e) + others[None, :]) * share
    return place, p, miss, y, level, kept


@triton.jit(do_not_specialize=["chunks", "share", "ignored"])
def sums(
    scores, target, counts, found, chunks, share, classes, places, ignored,
    SOFT: tl.constexpr, LAST: tl.constexpr, COUNTED: tl.constexpr, NUMBER: tl.constexpr,
    CLASSES: tl.constexpr, PLACES: tl.constexpr,
):  # fmt: skip
    """Write the three sums of each class over a chunk: a ``share`` of the tiles of a sample."""
    program = tl.program_id(0).to(tl.int64)
    sample, chunk = program // chunks, program % chunks
    right = tl.zeros((CLASSES,), tl.float64)
    excess, missed = right, right
    for tile in range(share):
        first = (chunk * share + tile) * PLACES
        _, p, miss, y, _, _ = _shares(
            scores, target, counts, sample, first, classes, places, ignored,
            SOFT, LAST, COUNTED, NUMBER, CLASSES, PLACES,
        )  # fmt: skip
        right += tl.sum(p * y, axis=1).to(tl.float64)
        excess += tl.sum(p * (1.0 - y), axis=1).to(tl.float64)
        missed += tl.sum(miss * y, axis=1).to(tl.float64)
    k = tl.arange(0, CLASSES)
    out = found + program * 3 * classes + k
    tl.store(out, right, mask=k < classes)
    tl.store(out + classes, excess, mask=k < classes)
    tl.store(out + 2 * classes, missed, mask=k < classes)


@triton.jit(do_not_specialize=["tiles", "ignored"])
def slopes(
    scores, target, counts, arrived, gradient, tiles, classes, places, ignored,
    SOFT: tl.constexpr, LAST: tl.constexpr, COUNTED: tl.constexpr, NUMBER: tl.constexpr,
    CLASSES: tl.constexpr, PLACES: tl.constexpr,
):  # fmt: skip
    """Write the slopes of the logits of a tile."""
    program = tl.program_id(0).to(tl.int64)
    sample, first = program // tiles, program % tiles * PLACES
    place, p, _, y, level, kept = _shares(
        scores, target, counts, sample, first, classes, places, ignored,
        SOFT, LAST, COUNTED, NUMBER, CLASSES, PLACES,
    )  # fmt: skip
    k = tl.arange(0, CLASSES)
    here = arrived + sample * 2 * classes + k
    own = tl.load(here, mask=k < classes, other=0.0)[:, None]
    rest = tl.load(here + classes, mask=k < classes, other=0.0)[:, None]
    h = y * own + (1.0 - y) * rest
    # Where several logits are the largest, the mean of their slopes serves as well.
    ties = tl.sum(tl.where(level, 1, 0), axis=0).to(NUMBER)
    h -= divide(tl.sum(tl.where(level, h, 0.0), axis=0), ties)[None, :]
    slope = p * (h - tl.sum(p * h, axis=0)[None, :])
    slope = tl.where(kept[None, :], slope, 0.0)
    inside = (k < classes)[:, None] & (first + tl.arange(0, PLACES) < places)[None, :]
    write_slopes(gradient, place, slope, inside)
