"""What is known of the rows of a linear head while their logits pass by, some classes at a time.

The numbers are those of `cross_entropy_rows`, and are added up as in `cross_entropy_triton`: relative
to the largest logit so far, in float64, so that they lose nothing when a larger one comes. The
largest logits themselves are counted apart, so that `log1p` keeps the digits of a row that is
almost certain.

Here are the plain operations; `linear_classes_gpu` does the same in one launch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ravine.losses import executors
from ravine.losses.linear_chunks import Terms
from ravine.losses.linear_state import Chunk, Known, Seen, Slopes
from ravine.losses.soft_cap import capped, slope_of_cap

BLOCK = 1 << 20
"""Logits that plain operations work on at once: their intermediate results are so large."""


def is_plain(terms: Terms, target: Tensor | None) -> bool:
    """Whether only one class of a row has a weight."""
    return target is not None and target.ndim == 1 and not terms.options["label_smoothing"]


def nothing_seen(rows: Tensor, target: Tensor | None, terms: Terms) -> Seen:
    """Return what is known of rows (rows, width) before their first class.

    ``target``: their classes, or None where they have probabilities.
    """
    zero = rows.new_zeros(len(rows), dtype=torch.float64)
    top = torch.full_like(zero, -torch.inf, dtype=torch.float32)
    total = zero.clone()
    if target is not None and is_plain(terms, target):
        of_class = terms.options["class_weight"]
        total = zero + 1 if of_class is None else of_class[target].double()
    return Seen(top, zero, zero.clone(), total, zero.clone(), top.clone())


def look(chunk: Chunk, seen: Seen, terms: Terms) -> None:
    """Add a chunk to what has been seen."""
    if executors.kind_of(chunk.logits) == "gpu":
        from ravine.losses.kernels import linear_classes_gpu  # which imports Triton

        linear_classes_gpu.look(chunk, seen, terms)
        return
    plain = is_plain(terms, chunk.target)
    for rows in _blocks(chunk.logits):
        x = _logits(chunk, rows)
        if terms.soft_cap is not None:
            x = capped(x, terms.soft_cap)
        top, rest, ties = seen.top[rows], seen.rest[rows], seen.ties[rows]
        highest = torch.maximum(top, x.amax(1))
        fall = torch.where(top == highest, 0.0, top - highest).double()
        moved = fall < 0
        rest.add_(torch.where(moved, ties, 0.0)).mul_(fall.exp())
        ties.masked_fill_(moved, 0.0)
        level = x == highest[:, None]
        d = torch.where(level, 0.0, x - highest[:, None])
        rest.add_(d.exp().masked_fill_(level, 0.0).sum(1, dtype=torch.float64))
        ties.add_(level.sum(1))
        if plain:
            place = chunk.target[rows] - chunk.start
            here = (place >= 0) & (place < x.shape[1])
            found = x.gather(1, torch.where(here, place, 0)[:, None])[:, 0]
            seen.own[rows] = torch.where(here, found, seen.own[rows])
        else:
            a = _weights(x, chunk, rows, terms)
            seen.inner[rows] += _product(seen.total[rows], fall)
            seen.inner[rows] += _product(a, d).sum(1, dtype=torch.float64)
            seen.total[rows] += a.sum(1, dtype=torch.float64)
        seen.top[rows] = highest


def finished(seen: Seen, plain: bool) -> Known:
    """Return what is known when all classes have been seen."""
    others = seen.rest + (seen.ties - 1)
    inner = seen.inner
    if plain:
        inner = _product(seen.total, _difference(seen.own, seen.top).double())
    log = others.log1p()
    return Known(seen.top, others, seen.total, seen.own, seen.top + log, seen.total * log - inner)


def slopes_of(known: Known, by_loss: Tensor, by_lse: Tensor) -> Slopes:
    """Return what makes slopes; ``by_loss`` and ``by_lse`` are float64."""
    d = _difference(known.own, known.top).double()
    inverse = 1 / (1 + known.others)
    # 1 - p of the target: exp(d) and 1 + others may both be almost 1.
    left = (known.others - d.expm1()) * inverse
    numbers = known.others, inverse, known.total, by_loss, by_lse, -by_loss * known.total * left
    return Slopes(known.top, *(t.float() for t in numbers))


def turn(chunk: Chunk, slopes: Slopes, terms: Terms, into: Tensor) -> None:
    """Write the slopes by the logits of a chunk into a half-precision tensor where these lie."""
    if executors.kind_of(chunk.logits) == "gpu":
        from ravine.losses.kernels import linear_classes_gpu  # which imports Triton

        linear_classes_gpu.turn(chunk, slopes, terms, into)
        return
    plain, cap = is_plain(terms, chunk.target), terms.soft_cap
    for rows in _blocks(chunk.logits):
        logits = _logits(chunk, rows)
        x = logits if cap is None else capped(logits, cap)
        top, others, inverse, total, by_loss, by_lse, at_own = (t[rows, None] for t in slopes)
        e = _difference(x, top).exp_()
        if plain:
            place = chunk.target[rows, None] - chunk.start
            own = place == torch.arange(x.shape[1], device=x.device)
            found = torch.where(own, at_own, by_loss * total * inverse * e)
        else:
            a = _weights(x, chunk, rows, terms)
            certain = (total - a) - total * (others * inverse)
            usual = total * (e * inverse) - a
            found = by_loss * torch.where((e == 1) & (others < 1), certain, usual)
        found += by_lse * inverse * e
        if cap is not None:
            found *= slope_of_cap(logits, cap)
        into[rows] = found


def _blocks(logits: Tensor) -> Iterator[slice]:
    step = max(1, BLOCK // logits.shape[1])
    return (slice(start, start + step) for start in range(0, len(logits), step))


def _logits(chunk: Chunk, rows: slice) -> Tensor:
    x = chunk.logits[rows]
    return x if chunk.bias is None else x + chunk.bias[chunk.place]


def _weights(x: Tensor, chunk: Chunk, rows: slice, terms: Terms) -> Tensor:
    """Return the weight of each class in its row, as `cross_entropy_reference.rows_loss` has it."""
    smoothing: float = terms.options["label_smoothing"]
    one = x.new_ones(()) if chunk.class_weight is None else chunk.class_weight[chunk.place]
    if chunk.target.ndim == 2:
        a = one * ((1 - smoothing) * chunk.target[rows])
    else:
        place = chunk.target[rows, None] - chunk.start
        own = place == torch.arange(x.shape[1], device=x.device)
        a = torch.where(own, (1 - smoothing) * one, 0.0)
    if smoothing:
        a = a + torch.where(x == -torch.inf, 0.0, one * (smoothing / chunk.classes))
    return a


def _difference(x: Tensor, top: Tensor) -> Tensor:
    """Equal ones differ by 0, infinite ones too."""
    return torch.where(x == top, 0.0, x - top)


def _product(a: Tensor, d: Tensor) -> Tensor:
    """Nothing of an infinity is nothing."""
    return torch.where(a == 0, 0.0, a * d)
