"""What the two multi-class hinge losses have in common: they divide alike, and their kernels are one."""

from __future__ import annotations

from torch import Tensor

from ravine.losses import executors
from ravine.losses.kernels import hinge_cpu
from ravine.losses.row_formula import RowBatch, Scale, weights_total


class MarginRows:
    """Rows with integer targets; the options are those of `hinge_cpu.rows_hinge`."""

    takes_soft = False
    on_gpu = True

    def amount(self, batch: RowBatch) -> Tensor:
        return weights_total(batch)

    def kernel(self, batch: RowBatch, scale: Scale, gradient: Tensor | None) -> Tensor:
        scores, target, factor, options = batch
        if executors.kind_of(scores) == "gpu":
            from ravine.losses.kernels import hinge_gpu  # which imports Triton

            return hinge_gpu.rows_hinge(scores, target, factor, scale, gradient, **options)
        assert isinstance(scale, float)
        return hinge_cpu.rows_hinge(scores, target, factor, scale, gradient, **options)
