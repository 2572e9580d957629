"""The rows of a linear head and its cross-entropy, a chunk of rows at a time.

The logits of a chunk become their own gradient where they lie (`linear_strips`), and are multiplied
into the gradients of hidden and weight before the next chunk overwrites them. Rows that do not count
are not in any chunk.

Measured in float32 at 768 x 32768, one core, GFLOP/s of the three products (of 102 at most): 64 rows
59, 57, 87; 96 rows 66, 62, 100; 256 rows 80, 96, 99. With the classes in blocks of 2048, so that a
block of the weight stays in the cache, 96 rows reach 79, 69 to 83 and 89: blocks pay for the first
two products, below some 256 rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ravine.engine.element_types import number_type
from ravine.losses import executors
from ravine.losses.arguments import is_at_hand
from ravine.losses.fused_rows import compute
from ravine.losses.linear_strips import Strips, buffered, lent
from ravine.losses.row_formula import RowBatch, Rows
from ravine.losses.soft_cap import capped, slope_of_cap

FEWEST, MOST = 64, 256
"""Rows of a chunk: fewer make the products slow, more do not make them faster."""

MOST_ON_A_GPU = 1024
"""By reasoning, not measured: each chunk reads and writes the whole gradient of the weight.

At 8 bytes a weight and 2 operations a row and weight, 256 rows are 64 operations a byte, and an H200 does
some 14 of float32 or 100 with TF32 while it moves one.
"""

SHARE = 3 / 64
"""Of all rows, those in a chunk: the logits held are this share of all logits."""

CLASSES = 2048
"""Classes whose weights are multiplied at once; half-precision ones are widened for it."""

SLOPE_NUMBERS = 1 << 17
"""Logits turned into slopes at once, through a second, small buffer that stays in the cache."""


@dataclass(frozen=True)
class Terms:
    """The loss of a row of logits: what all rows have in common."""

    rows: Rows
    options: Mapping[str, Any]
    soft_cap: float | None
    z_loss: float


@dataclass(frozen=True)
class Batch:
    """The rows; ``kept`` are the numbers of those that count, None if all do."""

    target: Tensor
    factor: Tensor | None
    kept: Tensor | None


@dataclass
class Found:
    """What a sweep leaves: for each row the loss and logsumexp, and the gradients asked for."""

    losses: Tensor
    lse: Tensor | None
    gradients: list[Tensor | None]


def chunk_rows(rows: int, most: int = MOST) -> int:
    """Return how many rows have their logits in memory at once."""
    return min(max(FEWEST, int(rows * SHARE) // 16 * 16), most)


def sweep(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    batch: Batch,
    terms: Terms,
    *,
    scale: float | Tensor = 1.0,
    lse_slope: Tensor | None = None,
    with_lse: bool = False,
    wanted: tuple[bool, bool, bool] = (False, False, False),
) -> Found:
    """Return the losses, and gradients in the type of the arithmetic.

    Args:
        hidden: (rows, width).
        weight: (classes, width).
        bias: (classes,) or None.
        batch: target, sample weights, and which rows count.
        terms: the loss of a row.
        scale: what the gradients are multiplied with, not the losses.
        lse_slope: (rows,) the slope by logsumexp that is added, or None.
        with_lse: whether logsumexp is returned.
        wanted: whether the gradient by hidden, weight and bias is.
    """
    number = number_type(hidden.dtype)
    count, classes = hidden.shape[0], weight.shape[0]
    losses = torch.zeros(count, dtype=number, device=hidden.device)
    lse = torch.zeros_like(losses) if with_lse else None
    sources = zip((hidden, weight, bias), wanted, strict=True)
    gradients = [
        torch.empty(t.shape, dtype=number, device=t.device) if t is not None and want else None
        for t, want in sources
    ]
    found = Found(losses, lse, gradients)
    counted = count if batch.kept is None else len(batch.kept)
    size = min(chunk_rows(counted, MOST if hidden.is_cpu else MOST_ON_A_GPU), counted)
    at_first = _rows_at_first(weight, counted, size, gradients[1])
    for gradient in gradients:
        if gradient is not None and (gradient is not gradients[1] or not at_first):
            gradient.zero_()
    buffer = torch.empty((size, classes), dtype=number, device=hidden.device)
    start = 0
    while start < counted:
        stop = min(start + (at_first if start < at_first else size), counted)
        picked = slice(start, stop) if batch.kept is None else batch.kept[start:stop]
        inputs = hidden[picked].to(number)
        if start < at_first and gradients[1] is not None:
            # A strip moves to the buffer when its place is needed.
            step = size * classes // at_first
            step = step if weight.dtype is number else min(step, CLASSES)
            x = lent(gradients[1], at_first, step, buffer)
        else:
            x = buffered(buffer[: stop - start], _classes_at_once(stop - start, weight, number))
        _logits(inputs, weight, bias, x)
        _slopes(x, picked, batch, terms, scale, lse_slope, any(wanted), found)
        _multiply(x, inputs, weight, picked, gradients)
        start = stop
    return found


def _rows_at_first(weight: Tensor, counted: int, size: int, gradient: Tensor | None) -> int:
    """Return how many rows have their logits in the gradient of the weight, before it is one."""
    rows = min(weight.shape[1], counted)
    return rows if gradient is not None and rows > size and size * weight.shape[0] >= rows else 0


def _classes_at_once(rows: int, weight: Tensor, number: torch.dtype) -> int:
    whole = weight.dtype is number and (rows >= MOST or not weight.is_cpu)
    return weight.shape[0] if whole else CLASSES


def _logits(inputs: Tensor, weight: Tensor, bias: Tensor | None, x: Strips) -> None:
    for place, strip in x:
        block = weight[place].to(strip.dtype).t()
        if bias is None:
            torch.mm(inputs, block, out=strip)
        else:
            torch.addmm(bias[place].to(strip.dtype), inputs, block, out=strip)


def _slopes(
    logits: Strips,
    picked: slice | Tensor,
    batch: Batch,
    terms: Terms,
    scale: float | Tensor,
    lse_slope: Tensor | None,
    wanted: bool,
    found: Found,
) -> None:
    """Fill in loss and logsumexp of the picked rows; turn their logits into slopes if wanted."""
    count, classes = len(logits.parts[0]), logits.places[-1].stop
    by_lse = bool(terms.z_loss) or found.lse is not None or lse_slope is not None
    cap = terms.soft_cap
    # Slopes by logsumexp need as much memory again, and a soft cap twice as much.
    step = max(1, SLOPE_NUMBERS // classes >> by_lse + (cap is not None))
    if not is_at_hand(found.losses):
        step = len(logits.buffer)
    # One launch, and no second buffer, where the logits are not needed any more.
    in_place = not by_lse and cap is None and executors.executor(terms.rows, logits.buffer) == "gpu"
    for start in range(0, count, step):
        given = logits.rows(start, min(start + step, count))
        x = given if cap is None else capped(given, cap)
        if isinstance(picked, slice):
            here: slice | Tensor = slice(picked.start + start, picked.start + start + len(x))
        else:
            here = picked[start : start + step]
        target = batch.target[here]
        if target.ndim == 2:
            target = target.to(x.dtype)
        factor = None if batch.factor is None else batch.factor[here]
        losses, slopes = compute(
            terms.rows,
            RowBatch(x, target, factor, terms.options),
            scale,
            wanted,
            x if in_place and wanted else None,
        )
        if by_lse:
            lse = x.logsumexp(1)
            if found.lse is not None:
                found.lse[here] = lse
            own = 2 * terms.z_loss * lse
            square = terms.z_loss * lse * lse
            losses = losses + (square if factor is None else factor * square)
            if wanted:
                each = scale * (own if factor is None else factor * own)
                if lse_slope is not None:
                    each = each + lse_slope[here]
                slopes.add_((x - lse[:, None]).exp_().mul_(each[:, None]))
        found.losses[here] = losses
        if wanted and cap is not None:
            slopes.mul_(slope_of_cap(given, cap))
        if wanted and not (in_place and logits.whole):
            logits.put(start, slopes)
        del slopes  # before the next ones are made


def _multiply(
    slopes: Strips,
    inputs: Tensor,
    weight: Tensor,
    picked: slice | Tensor,
    gradients: list[Tensor | None],
) -> None:
    """Add what the slopes of a chunk mean for hidden, weight and bias."""
    by_hidden, by_weight, by_bias = gradients
    if by_bias is not None:
        for place, strip in slopes:
            by_bias[place] += strip.sum(0)
    if by_hidden is not None:
        rows = by_hidden[picked] if isinstance(picked, slice) else torch.zeros_like(inputs)
        for place, strip in slopes:
            rows.addmm_(strip, weight[place].to(strip.dtype))
        if not isinstance(picked, slice):
            by_hidden[picked] = rows
    if by_weight is None:
        return
    if slopes.whole:
        by_weight.addmm_(slopes.buffer.t(), inputs)
        return
    for place, strip in slopes:
        moved = slopes.buffer.view(-1)[: strip.numel()].view(strip.shape).copy_(strip)
        torch.mm(moved.t(), inputs, out=by_weight[place])
