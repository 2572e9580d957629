"""Cross-entropy over classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ravine.errors import TargetError
from ravine.losses import executors
from ravine.losses.bounds import FRACTION, INTEGER, Bound
from ravine.losses.class_arguments import class_numbers
from ravine.losses.cross_entropy_reference import check_targets, rows_loss
from ravine.losses.kernels.cross_entropy_cpu import (
    PARALLEL_FROM,
    rows_loss_and_gradient,
    small_batch,
)
from ravine.losses.row_formula import RowBatch, Scale, weights_total
from ravine.losses.rows import RowLoss

DOC = """Cross-entropy of logits with classes, or with probabilities of the classes.

    Equation:
        loss = -sum_k y_k log softmax(x)_k
        y    = (1 - s) target + s / K    with label smoothing s over K classes

    Args:
        input: logits (..., K), any float type.
        target: classes (...), integers in 0..K-1 or ``ignore_index``; or probabilities (..., K).
        class_weight: (K,) weights that multiply every class's term, >= 0, or None.
        label_smoothing: s, in [0, 1].
        ignore_index: the class of samples that are left out: zero loss, zero gradient.
        dim: the dimension of the classes; torch's layout (N, K, d1, ...) is ``dim=1``.
        weight: one weight for each sample (...), >= 0; 0 leaves the sample out.
        reduction: "mean", "sum" or "none".
        normalizer: what the sum is divided by instead, with "mean".
        check: "off" spares the look at probabilities and sample weights, and gives NaN for a row
            whose class is out of range instead of an error.

    Returns:
        One number, or (...) with reduction="none"; float32 for float16 and bfloat16 input. The mean of
        integer classes divides by the sum of sample weight times class weight, that of probabilities
        by the sum of the sample weights. If every sample is left out the mean is 0, its gradient 0.

    Raises:
        TargetError: a class out of range, with its position. ShapeError: shapes that do not fit, or an
            empty batch. ArgumentError: an option out of its bounds.

    Example:
        >>> import torch
        >>> from ravine.losses import cross_entropy
        >>> cross_entropy(torch.tensor([[17.0, 0.0, 0.0]]), torch.tensor([0])).item()  # torch: 0.0
        8.279...e-08

    Differs from: torch calls the class weights ``weight`` and has the classes in dimension 1; its mean
    over ignored samples only is NaN. Confident rows keep every digit here: the sum runs over the
    other classes. Keras takes probabilities unless told otherwise.

    Source: Bridle 1990; Szegedy et al. 2016 for label smoothing.
    """


class CrossEntropyRows:
    """The rows of cross-entropy."""

    takes_soft = True
    on_gpu = True

    bounds: Mapping[str, Bound] = {
        "label_smoothing": FRACTION,
        "ignore_index": INTEGER,
        "dim": INTEGER,
    }

    def settle(
        self, scores: Tensor, values: Mapping[str, Any], checked: bool = True
    ) -> Mapping[str, Any]:
        given = values["class_weight"]
        if given is None:
            return values
        numbers = class_numbers(
            "cross_entropy", "class_weight", given, scores, "class weights", checked=checked
        )
        return {**values, "class_weight": numbers}

    def check_target(self, batch: RowBatch) -> None:
        if batch.target.ndim == 2:
            _check_probabilities(batch.target, batch.factor)
        else:
            check_targets(batch.target, batch.scores.shape[1], batch.options["ignore_index"])

    def amount(self, batch: RowBatch) -> Tensor:
        _, target, factor, options = batch
        if target.ndim == 2:
            return weights_total(batch)
        kept = target != options["ignore_index"]
        amounts = kept.double()
        if options["class_weight"] is not None:
            amounts = amounts * options["class_weight"][torch.where(kept, target, 0)]
        if factor is not None:
            amounts = amounts * factor
        total: Tensor = amounts.sum()
        return total

    def reference(self, batch: RowBatch) -> Tensor:
        scores, target, factor, options = batch
        return rows_loss(scores, target, sample_weight=factor, **options)

    def kernel(self, batch: RowBatch, scale: Scale, gradient: Tensor | None) -> Tensor:
        scores, target, factor, options = batch
        run: Callable[..., Tensor] = rows_loss_and_gradient
        if executors.kind_of(scores) == "gpu":
            from ravine.losses.kernels import cross_entropy_gpu  # which imports Triton

            run = cross_entropy_gpu.rows_loss_and_gradient
        return run(scores, target, sample_weight=factor, scale=scale, gradient=gradient, **options)


class SmallCrossEntropyRows(CrossEntropyRows):
    """Cross-entropy alone, whose kernel also serves a small batch by one call."""

    small = PARALLEL_FROM

    def small_batch(
        self, batch: RowBatch, divisor: float, gradient: Tensor | None
    ) -> tuple[bool, float, float]:
        scores, target, factor, options = batch
        return small_batch(
            scores,
            target,
            options["class_weight"],
            factor,
            options["label_smoothing"],
            options["ignore_index"],
            divisor,
            gradient,
        )


def _check_probabilities(target: Tensor, factor: Tensor | None) -> None:
    if target.numel() == 0 or bool(target.min() >= 0):  # NaN is no number >= 0 either
        return
    wrong = ~(target >= 0)
    if factor is not None:
        wrong &= (factor != 0)[:, None]
    if bool(wrong.any()):
        row, column = wrong.nonzero()[0].tolist()
        raise TargetError(
            "cross_entropy: a target probability is outside of what the loss is defined for",
            where=f"sample {row}, class {column}",
            got=repr(target[row, column].item()),
            expected="a number >= 0; the probabilities of a sample add up to 1",
        )


cross_entropy = RowLoss(
    "CrossEntropy",
    "cross_entropy",
    DOC,
    {"class_weight": None, "label_smoothing": 0.0, "ignore_index": -100, "dim": -1},
    SmallCrossEntropyRows(),
)
