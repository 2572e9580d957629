"""Row losses that are a function of the cross-entropy c of their row, and so of p = exp(-c).

The kernels of cross-entropy do the work over the classes: once for c and, where a gradient is
wanted, once more with the slope of the function as the weight of the row, so that a gradient is
rounded once. The function itself runs on one number a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ravine.losses.bounds import INTEGER, Bound
from ravine.losses.class_arguments import check_classes, class_numbers
from ravine.losses.cross_entropy import CrossEntropyRows
from ravine.losses.row_formula import RowBatch, Scale

Curve = Callable[[Tensor, Mapping[str, Any]], Tensor]


class OfCrossEntropy(CrossEntropyRows):
    """The rows of a loss ``curve(cross-entropy)`` times a number for the class of the target.

    Args:
        name: what messages call the loss.
        curve: (cross-entropy of each row, options) -> loss of each row, by plain operations.
        bounds: hyperparameter -> (test, the bound in words).
        by_class: the option that holds one factor for each class. ``class_weight`` takes part in what
            the mean divides by, any other name does not.
    """

    takes_soft = False

    def __init__(
        self, name: str, curve: Curve, bounds: Mapping[str, Bound], *, by_class: str
    ) -> None:
        self.name = name
        self.curve = curve
        self.bounds = {**bounds, "ignore_index": INTEGER, "dim": INTEGER}
        self.by_class = by_class

    def settle(
        self, scores: Tensor, values: Mapping[str, Any], checked: bool = True
    ) -> dict[str, Any]:
        given = values[self.by_class]
        factors = class_numbers(self.name, self.by_class, given, scores, checked=checked)
        return {"class_weight": None, **values, self.by_class: factors}

    def check_target(self, batch: RowBatch) -> None:
        classes = batch.scores.shape[1]
        check_classes(self.name, batch.target, classes, batch.options["ignore_index"])

    def reference(self, batch: RowBatch) -> Tensor:
        _, target, factor, options = batch
        losses = self.curve(super().reference(_plain(batch)), options)
        times = self._times(batch)
        if times is not None:
            losses = times * losses
        kept = target != options["ignore_index"]
        return torch.where(kept if factor is None else kept & (factor != 0), losses, 0.0)

    def kernel(self, batch: RowBatch, scale: Scale, gradient: Tensor | None) -> Tensor:
        plain = _plain(batch)
        entropy = super().kernel(plain, 1.0, None)
        with torch.enable_grad():
            losses = self.curve(entropy.requires_grad_(), batch.options)
            (slope,) = torch.autograd.grad(losses.sum(), entropy)
        losses, slope = losses.detach(), slope.contiguous()  # a sum's slope is one number in memory
        times = self._times(batch)
        if times is not None:
            losses, slope = times * losses, times * slope
        if gradient is not None:
            super().kernel(plain._replace(factor=slope), scale, gradient)
        return losses

    def _times(self, batch: RowBatch) -> Tensor | None:
        """Return what each row's loss is multiplied by, or None for 1."""
        _, target, factor, options = batch
        of_class = options[self.by_class]
        if of_class is None:
            return factor
        times: Tensor = of_class[torch.where(target == options["ignore_index"], 0, target)]
        return times if factor is None else times * factor


def _plain(batch: RowBatch) -> RowBatch:
    """Return the batch for the cross-entropy of each row that counts, without any factor."""
    scores, target, factor, options = batch
    chosen = None if factor is None else (factor != 0).to(factor.dtype)
    ignored = options["ignore_index"]
    plain = {"class_weight": None, "label_smoothing": 0.0, "ignore_index": ignored}
    return RowBatch(scores, target, chosen, plain)
