"""Runs the kernel of the multi-class hinge losses on tensors of a GPU, in one launch."""

from __future__ import annotations

from torch import Tensor

from ravine.losses.kernels.hinge_triton import kernel
from ravine.losses.kernels.row_launch import launched
from ravine.losses.row_formula import Scale


def rows_hinge(
    scores: Tensor,
    target: Tensor,
    factor: Tensor | None,
    scale: Scale,
    gradient: Tensor | None,
    *,
    p: int = 0,
    margin: float = 1.0,
    times: Tensor | None = None,
) -> Tensor:
    """Return the loss of each row times its factor; fill ``gradient``, times ``scale``, if given.

    Arguments as in `hinge_cpu.rows_hinge`, with two liberties: ``scale`` may be a float64 number on the
    device, which the host does not wait for, and ``gradient`` may be ``scores``. Nothing is done where it
    is `Arrived` with 1.
    """
    return launched(
        kernel, scores, target, times, factor, scale, gradient, P=p, MARGIN=float(margin)
    )
