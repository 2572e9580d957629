"""Runs the cross-entropy kernel on tensors of a GPU, in one launch."""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ravine.losses.kernels.cross_entropy_triton import kernel
from ravine.losses.row_formula import Arrived, Scale

TILE = 1024
"""Logits of a tile at least: rows of few classes share one."""

WIDEST = 4096
"""Logits of a row in a tile at most, half as many of float64: 16 a thread.

52 registers a thread then, so that four programs share a multiprocessor, and one computes while others wait.
"""

A_WARP = 512
"""Logits for each warp of a program, of which there are at least 4."""


FEW = 32
"""Logits of a row that one thread may have, half as many of float64: 64 would not fit into its registers.

Instructions of a warp for each row in the code for sm_90, float32, against a row shared by threads:

=======  ====  ====  ====  =====  =====
classes     2     3     5     10     21
=======  ====  ====  ====  =====  =====
shared   13.5  26.8  53.8  113.6  225.8
its own  11.8  16.0  22.9   34.5   65.3
=======  ====  ====  ====  =====  =====

An H200 has time for 18 while it reads and writes a row of 10. Multiples of 16 stay shared: there a thread has
16 bytes side by side (45.6 of 16 classes), and rows would begin in the same banks of shared memory.
"""

A_THREAD_EACH = 128
"""Rows of such a program: as many as it has threads."""


class Tile(NamedTuple):
    """How a program's part is cut. By reasoning: nothing of this was measured on a GPU."""

    rows: int
    columns: int
    warps: int
    few: int = 0
    """How many classes there are, if each thread has rows of its own; else the threads of a row share it."""


def tile_of(classes: int, dtype: torch.dtype) -> Tile:
    """Return the tile for rows of so many classes."""
    double = dtype is torch.float64
    widest = WIDEST // 2 if double else WIDEST
    columns = min(triton.next_power_of_2(classes), widest)
    if classes % 16 and classes <= columns and columns <= (FEW // 2 if double else FEW):
        return Tile(A_THREAD_EACH, columns, 4, classes)
    return Tile(max(1, TILE // columns), columns, max(columns // A_WARP, 4))


def rows_loss_and_gradient(
    logits: Tensor,
    targets: Tensor,
    *,
    class_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    scale: Scale = 1.0,
    gradient: Tensor | None = None,
) -> Tensor:
    """Return the loss of each row, in the type of the arithmetic, and fill ``gradient`` if given.

    Arguments as in `cross_entropy_cpu.rows_loss_and_gradient`, with two liberties: ``scale`` may be a
    float64 number on the device, which the host does not wait for, and ``gradient`` may be ``logits``.
    Nothing is done where it is `Arrived` with 1.
    """
    rows, classes = logits.shape
    double = logits.dtype is torch.float64
    losses = torch.empty(
        rows, dtype=torch.float64 if double else torch.float32, device=logits.device
    )
    if rows == 0:
        return losses
    absent = arrived = logits  # in the place of what is not looked at
    again = isinstance(scale, Arrived)
    if isinstance(scale, Arrived):
        scale, arrived = scale
    elif gradient is None:
        scale = absent
    elif not isinstance(scale, Tensor):  # as an argument it would be a float32
        scale = torch.full((), scale, dtype=torch.float64, device=logits.device)
    bfloat = logits.dtype is torch.bfloat16
    out = absent if gradient is None else gradient
    if bfloat:
        logits, out = logits.view(torch.int16), out.view(torch.int16)
    tile = tile_of(classes, logits.dtype)
    with torch.cuda.device(logits.device) if logits.is_cuda else nullcontext():
        kernel[(triton.cdiv(rows, tile.rows),)](
            logits,
            targets,
            absent if class_weight is None else class_weight,
            absent if sample_weight is None else sample_weight,
            losses,
            out,
            scale,
            arrived,
            rows,
            classes,
            ignore_index,
            EPSILON=float(label_smoothing),
            SOFT=targets.ndim == 2,
            WEIGHTED=class_weight is not None,
            FACTORED=sample_weight is not None,
            SLOPES=gradient is not None,
            AGAIN=again and gradient is not None,
            NUMBER=tl.float64 if double else tl.float32,
            ONE=classes <= tile.columns,
            ROWS=tile.rows,
            COLUMNS=tile.columns,
            FEW=tile.few,
            num_warps=tile.warps,
            enable_fp_fusion=True,
        )
    return losses
