"""Launches a kernel over rows of scores on a GPU, once."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ravine.losses.row_formula import Arrived, Scale

TILE = 1024
"""Scores of a tile at least: rows of few classes share one."""

WIDEST = 4096
"""Scores of a row in a tile at most, half as many of float64: 16 a thread.

Cross-entropy takes 52 registers a thread then, so that four programs share a multiprocessor, and one computes
while others wait.
"""

A_WARP = 512
"""Scores for each warp of a program, of which there are at least 4."""


class Tile(NamedTuple):
    """How a program's part is cut. By reasoning: nothing of this was measured on a GPU.

    Of rows of less than 64 classes the threads of a row repeat what is done once a row: 225 instructions of a
    warp for one of 21 in cross-entropy, several times what its reading and writing takes.
    """

    rows: int
    columns: int
    warps: int


def tile_of(classes: int, dtype: torch.dtype) -> Tile:
    """Return the tile for rows of so many classes."""
    widest = WIDEST // 2 if dtype is torch.float64 else WIDEST
    columns = min(triton.next_power_of_2(classes), widest)
    return Tile(max(1, TILE // columns), columns, max(columns // A_WARP, 4))


def launched(
    kernel: Any,
    scores: Tensor,
    target: Tensor,
    by_class: Tensor | None,
    factor: Tensor | None,
    scale: Scale,
    gradient: Tensor | None,
    **own: Any,
) -> Tensor:
    """Return the loss of each row, in the type of the arithmetic, and fill ``gradient`` if given.

    Args:
        kernel: takes ``scores, target, by_class, factor, losses, gradient, scale, arrived, rows,
            classes``, the constants below and what ``own`` names.
        scores: (rows, classes), contiguous, of a float type; the kernel sees bfloat16 as int16.
        target: as the kernel wants it.
        by_class: (classes,) in the type of the arithmetic; ``WEIGHTED`` if it is there.
        factor: (rows,) in the type of the arithmetic; ``FACTORED`` if it is there.
        scale: what the gradient is multiplied with: a number; a float64 number on the device, which the
            host does not wait for; or `Arrived` (``AGAIN``): nothing is done if that is 1.
        gradient: like ``scores``, or ``scores``; ``SLOPES`` if it is there.
        own: further arguments of the kernel.
    """
    rows, classes = scores.shape
    double = scores.dtype is torch.float64
    losses = torch.empty(
        rows, dtype=torch.float64 if double else torch.float32, device=scores.device
    )
    if rows == 0:
        return losses
    absent = arrived = scores  # in the place of what is not looked at
    again = isinstance(scale, Arrived)
    if isinstance(scale, Arrived):
        scale, arrived = scale
    elif gradient is None:
        scale = absent
    elif not isinstance(scale, Tensor):  # as an argument it would be a float32
        scale = torch.full((), scale, dtype=torch.float64, device=scores.device)
    out = absent if gradient is None else gradient
    if scores.dtype is torch.bfloat16:
        scores, out = scores.view(torch.int16), out.view(torch.int16)
    tile = tile_of(classes, scores.dtype)
    with torch.cuda.device(scores.device) if scores.is_cuda else nullcontext():
        kernel[(triton.cdiv(rows, tile.rows),)](
            scores,
            target,
            absent if by_class is None else by_class,
            absent if factor is None else factor,
            losses,
            out,
            scale,
            arrived,
            rows,
            classes,
            WEIGHTED=by_class is not None,
            FACTORED=factor is not None,
            SLOPES=gradient is not None,
            AGAIN=again and gradient is not None,
            NUMBER=tl.float64 if double else tl.float32,
            ONE=classes <= tile.columns,
            ROWS=tile.rows,
            COLUMNS=tile.columns,
            num_warps=tile.warps,
            enable_fp_fusion=True,
            **own,
        )
    return losses
