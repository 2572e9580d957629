"""Runs the cross-entropy kernel on tensors of a GPU, in one launch."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from ravine.losses.kernels.cross_entropy_triton import kernel
from ravine.losses.kernels.row_launch import Tile, launched, tile_of
from ravine.losses.row_formula import Scale

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


def few_of(classes: int, dtype: torch.dtype) -> int:
    """Return how many classes there are, if each thread has rows of its own, else 0."""
    if not hasattr(tl, "gather"):  # of a later Triton than torch 2.6 brings
        return 0
    columns = tile_of(classes, dtype).columns
    most = FEW // 2 if dtype is torch.float64 else FEW
    return classes if classes % 16 and classes <= columns <= most else 0


def tile_for(classes: int, dtype: torch.dtype) -> Tile:
    """Return the tile for rows of so many classes."""
    tile = tile_of(classes, dtype)
    return Tile(A_THREAD_EACH, tile.columns, 4) if few_of(classes, dtype) else tile


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
    classes = logits.shape[1]
    return launched(
        kernel,
        tile_for(classes, logits.dtype),
        logits,
        targets,
        class_weight,
        sample_weight,
        scale,
        gradient,
        ignored=ignore_index,
        EPSILON=float(label_smoothing),
        SOFT=targets.ndim == 2,
        FEW=few_of(classes, logits.dtype),
    )
