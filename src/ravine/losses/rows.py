# mypy: disable-error-code="no-untyped-call"
"""Losses over a row of scores, one for each class: what they have in common.

A row loss brings a kernel that visits each row once and leaves loss and gradient, and a reference in
plain PyTorch. Classes are in the last dimension, or in ``dim``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ravine.errors import ShapeError
from ravine.losses.arguments import (
    check_not_empty,
    check_reduction,
    check_weight,
    is_checked,
    is_usual,
    needs_gradient,
    plain_only,
    readable,
    refuse_capture,
)
from ravine.losses.bounds import settled
from ravine.losses.fused_rows import (
    FusedRows,
    Request,
    first_pass,
    plain_losses,
    without_strangers,
)
from ravine.losses.reduction import divisor_of, reduced
from ravine.losses.row_formula import RowBatch, Rows
from ravine.losses.row_layout import RowLayout, layout_of

REMEMBERED = 64
"""How many layouts a loss keeps: a step then costs a look at them, not the checks."""

# The applying itself: functorch, which Function.apply looks for first, is not at work (`plain_only`).
_apply = super(torch.autograd.Function, FusedRows).apply


class RowLoss:
    """A loss of scores (..., classes) with integer targets (...) or soft ones (..., classes)."""

    def __init__(
        self, module: str, name: str, doc: str, hyperparameters: dict[str, Any], rows: Rows
    ) -> None:
        self.module = module
        self.__name__ = name
        self.__doc__ = doc
        self.hyperparameters = hyperparameters
        self.rows = rows
        self._defaults = {k: v for k, v in hyperparameters.items() if k != "dim"}
        self._dim: int = hyperparameters.get("dim", -1)
        self._layouts: dict[Any, RowLayout] = {}

    def settle(self, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return all hyperparameters, checked against their bounds."""
        return settled(self.__name__, hyperparameters, self.hyperparameters, self.rows.bounds)

    def __call__(
        self,
        input: Tensor,
        target: Tensor,
        *,
        weight: Tensor | None = None,
        reduction: str = "mean",
        normalizer: float | Tensor | None = None,
        check: str = "on",
        **hyperparameters: Any,
    ) -> Tensor:
        name = self.__name__
        values, dim = self._defaults, self._dim
        if hyperparameters:
            values = self.settle(hyperparameters)
            dim = values.pop("dim", -1)
        checked = is_checked(name, check)
        if checked:
            refuse_capture(name, input)
        check_reduction(name, reduction, normalizer, checked)
        usual = not plain_only() and is_usual(input) and is_usual(target)
        layout = None
        if usual:
            place = (
                input.shape, input.dtype, input.device, target.shape, target.dtype, target.device, dim,
            )  # fmt: skip
            layout = self._layouts.get(place)
        if layout is None:
            layout = self._new_layout(input, target, dim, reduction, normalizer)
            if usual and layout.shape.numel():
                if len(self._layouts) >= REMEMBERED:
                    self._layouts.clear()
                self._layouts[place] = layout
        shape = layout.shape
        scores, target = layout.rows(input, target)
        factor = None
        if weight is not None:
            factor = check_weight(name, weight, shape, input, checked).reshape(-1).to(layout.wide)
            usual = usual and is_usual(weight)
        options = self.rows.settle(scores, values, checked)
        batch = RowBatch(scores, target, factor, options)
        if (
            not usual
            or needs_gradient(target, weight, normalizer)
            or (hyperparameters and needs_gradient(*options.values()))
        ):
            losses = self._plain(batch, reduction, normalizer, checked)
            return losses.reshape(shape) if reduction == "none" else losses
        summed = reduction != "none"
        divisor: float | Tensor = 1.0
        if reduction == "mean":
            divisor = 0.0 if normalizer is None else divisor_of(normalizer, input)
        request = Request(self.rows, batch, summed, divisor, checked)
        if scores.requires_grad and torch.is_grad_enabled():
            found: Tensor = _apply(scores, request)
        else:
            found = first_pass(request, False)[0]
        return found if summed else found.reshape(shape)

    def _new_layout(
        self, input: Tensor, target: Tensor, dim: int, reduction: str, normalizer: Any
    ) -> RowLayout:
        name = self.__name__
        found = layout_of(name, input, target, dim, takes_soft=self.rows.takes_soft)
        check_not_empty(name, found.shape.numel(), reduction, normalizer)
        if found.classes == 0:
            raise ShapeError(f"{name}: there are no classes", got=f"input {tuple(input.shape)}")
        return found

    def amount(self, target: Tensor, **hyperparameters: Any) -> Tensor:
        """Return what the mean divides by: the rows, or the weights of those not ignored.

        >>> from ravine.losses import cross_entropy
        >>> cross_entropy.amount(torch.tensor([0, -100, 2]), class_weight=[1.0, 1.0, 0.5]).item()
        1.5
        """
        values = self.settle(hyperparameters)
        soft = target.is_floating_point()
        target = target.movedim(values.pop("dim", -1), -1).flatten(0, -2) if soft else target
        class_weight = values.get("class_weight")
        if class_weight is not None:
            class_weight = torch.as_tensor(class_weight, dtype=torch.float64, device=target.device)
        options = {**values, "class_weight": class_weight}
        # No amount depends on the scores.
        rows = target if soft else target.reshape(-1)
        return self.rows.amount(RowBatch(rows, rows, None, options))

    def _plain(
        self,
        batch: RowBatch,
        reduction: str,
        normalizer: float | Tensor | None,
        checked: bool,
    ) -> Tensor:
        scores, target = batch.scores.detach(), batch.target.detach()
        if checked and readable(scores, target):
            self.rows.check_target(batch._replace(scores=scores, target=target))
        elif target.ndim == 1:
            batch = without_strangers(batch)
        losses = plain_losses(self.rows, batch)
        return reduced(losses, reduction, normalizer, lambda: self.rows.amount(batch))

    def __repr__(self) -> str:
        return f"<loss {self.__name__}>"
