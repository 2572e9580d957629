"""Runs the cross-entropy kernel on tensors of a GPU, in one launch."""

from __future__ import annotations

from torch import Tensor

from ravine.losses.kernels.cross_entropy_triton import kernel
from ravine.losses.kernels.row_launch import launched
from ravine.losses.row_formula import Scale


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
    return launched(
        kernel,
        logits,
        targets,
        class_weight,
        sample_weight,
        scale,
        gradient,
        ignored=ignore_index,
        EPSILON=float(label_smoothing),
        SOFT=targets.ndim == 2,
    )
