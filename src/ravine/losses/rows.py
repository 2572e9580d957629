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

from ravine.errors import ArgumentTypeError, ShapeError
from ravine.losses.arguments import (
    check_device,
    check_input,
    check_is_tensor,
    check_not_empty,
    check_reduction,
    check_weight,
    is_checked,
    needs_gradient,
    plain_only,
    readable,
)
from ravine.losses.bounds import settled
from ravine.losses.fused_rows import (
    FusedRows,
    Request,
    RowBatch,
    Rows,
    first_pass,
    plain_losses,
    without_strangers,
)
from ravine.losses.reduction import reduced

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
        values = self.settle(hyperparameters) if hyperparameters else {**self.hyperparameters}
        check_reduction(name, reduction, normalizer)
        checked = is_checked(name, check)
        check_input(name, input)
        check_is_tensor(name, target)
        dim, ndim = values.pop("dim", -1), input.ndim
        if ndim == 0 or not -ndim <= dim < ndim:
            raise ShapeError(
                f"{name}: there is no dimension {dim} for the classes",
                got=f"input {tuple(input.shape)}",
            )
        last = dim in (-1, ndim - 1)
        scores = input if last else input.movedim(dim, -1)
        shape, classes = scores.shape[:-1], scores.shape[-1]
        soft = target.is_floating_point()
        if soft and not last and target.shape == input.shape:
            target = target.movedim(dim, -1)
        if soft and not self.rows.takes_soft:
            raise ArgumentTypeError(
                f"{name}: targets are classes",
                got=f"a target of type {target.dtype}",
                expected=f"integers of shape {tuple(shape)}",
            )
        _check_target(name, input, target, scores.shape if soft else shape, dim)
        check_not_empty(name, shape.numel(), reduction, normalizer)
        if classes == 0:
            raise ShapeError(f"{name}: there are no classes", got=f"input {tuple(input.shape)}")
        wide = torch.float64 if input.dtype is torch.float64 else torch.float32
        if ndim != 2:
            scores = scores.reshape(-1, classes)
            target = target.reshape(-1, classes) if soft else target.reshape(-1)
        kind = wide if soft else torch.int64
        if target.dtype is not kind:
            target = target.to(kind)
        factor = None
        if weight is not None:
            factor = check_weight(name, weight, shape, input, checked).reshape(-1).to(wide)
        options = self.rows.settle(scores, values)
        batch = RowBatch(scores, target, factor, options)
        if plain_only(input, target, weight) or needs_gradient(
            target, weight, normalizer, *options.values()
        ):
            losses = self._plain(batch, reduction, normalizer, checked)
            return losses.reshape(shape) if reduction == "none" else losses
        summed = reduction != "none"
        divisor = 1.0
        if reduction == "mean":
            divisor = 0.0 if normalizer is None else float(normalizer)
        request = Request(self.rows, batch, summed, divisor, checked)
        if scores.requires_grad and torch.is_grad_enabled():
            found: Tensor = _apply(scores, request)
        else:
            found = first_pass(request, False)[0]
        return found if summed else found.reshape(shape)

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


def _check_target(name: str, input: Tensor, target: Tensor, expected: torch.Size, dim: int) -> None:
    """Raise unless the target is a tensor of the shape that goes with the input."""
    if target.is_complex() or target.dtype == torch.bool:
        raise ArgumentTypeError(
            f"{name}: targets cannot be of type {target.dtype}",
            expected="integer classes, or probabilities in a float type",
        )
    if target.shape != expected:
        classes = input.shape[dim]
        hint = f"the classes are dimension {dim} of the input here"
        if (
            input.ndim > 2
            and dim in (-1, input.ndim - 1)
            and (target.shape == input.shape[:1] + input.shape[2:])
        ):
            hint = "torch has the classes in dimension 1; for that layout give dim=1"
        raise ShapeError(
            f"{name}: input and target do not fit each other",
            got=f"input {tuple(input.shape)}, target {tuple(target.shape)} {target.dtype}",
            expected=f"integer targets {tuple(expected)}"
            if not target.is_floating_point()
            else f"probabilities {tuple(expected)}, or integer classes; there are {classes} classes",
            do=hint,
        )
    check_device(name, "target", target, input)
