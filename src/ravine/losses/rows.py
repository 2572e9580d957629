# mypy: disable-error-code="no-untyped-call"
"""Losses over a row of scores, one for each class: what they have in common.

A row loss brings a kernel that visits each row once and leaves loss and gradient, and a reference in
plain PyTorch. Classes are in the last dimension, or in ``dim``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from ravine.engine import cpu
from ravine.engine.choice import warn_once
from ravine.engine.cpu_source import STORED_TYPES
from ravine.errors import ArgumentError, ShapeError, unknown_option
from ravine.losses import buffers
from ravine.losses.arguments import (
    check_input,
    check_not_empty,
    check_reduction,
    check_weight,
    plain_only,
)


class Rows(Protocol):
    """The formula of a row loss; tensors are (rows, classes), (rows,) or (rows, classes), (rows,)."""

    def settle(self, scores: Tensor, target: Tensor, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options in the form that the other two want, or raise."""

    def amount(
        self, target: Tensor, factor: Tensor | None, options: Mapping[str, Any]
    ) -> float | Tensor:
        """Return what the mean divides by."""

    def reference(
        self, scores: Tensor, target: Tensor, factor: Tensor | None, options: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of each row, times its factor."""

    def kernel(
        self,
        scores: Tensor,
        target: Tensor,
        factor: Tensor | None,
        options: Mapping[str, Any],
        scale: float,
        gradient: Tensor | None,
    ) -> Tensor:
        """Return the same on the CPU; fill the gradient, times ``scale``, if it is given."""


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
        """Return all hyperparameters, checked."""
        for option in hyperparameters:
            if option not in self.hyperparameters:
                known = [*self.hyperparameters, "weight", "reduction", "normalizer"]
                raise unknown_option(self.__name__, option, known)
        return {**self.hyperparameters, **hyperparameters}

    def __call__(
        self,
        input: Tensor,
        target: Tensor,
        *,
        weight: Tensor | None = None,
        reduction: str = "mean",
        normalizer: float | Tensor | None = None,
        **hyperparameters: Any,
    ) -> Tensor:
        name = self.__name__
        values = self.settle(hyperparameters)
        check_reduction(name, reduction, normalizer)
        check_input(name, input)
        dim = values.pop("dim", -1)
        if input.ndim == 0 or not -input.ndim <= dim < input.ndim:
            raise ShapeError(
                f"{name}: there is no dimension {dim} for the classes",
                got=f"input {tuple(input.shape)}",
            )
        soft = isinstance(target, Tensor) and target.is_floating_point()
        scores = input.movedim(dim, -1)
        if soft and target.shape == input.shape:
            target = target.movedim(dim, -1)
        shape = scores.shape[:-1]
        _check_target(name, input, target, scores.shape if soft else shape, dim)
        check_not_empty(name, shape.numel(), reduction, normalizer)
        classes = scores.shape[-1]
        if classes == 0:
            raise ShapeError(f"{name}: there are no classes", got=f"input {tuple(input.shape)}")
        scores = scores.reshape(-1, classes)
        target = target.reshape(-1, classes) if soft else target.reshape(-1).long()
        wide = torch.float64 if input.dtype is torch.float64 else torch.float32
        factor = None
        if weight is not None:
            factor = check_weight(name, weight, shape).reshape(-1).to(wide)
        target = target.to(wide) if soft else target
        options = self.rows.settle(scores.detach(), target.detach(), values)
        scale = 1.0
        if reduction == "mean":
            amount = self.rows.amount(target, factor, options) if normalizer is None else normalizer
            scale = 1.0 / float(amount) if float(amount) > 0 else 0.0
        differentiated = [t for t in (target, factor) if t is not None and t.requires_grad]
        if plain_only(input, target, weight) or differentiated:
            losses = self.rows.reference(scores, target, factor, options)
        elif reduction == "none":
            losses = FusedRows.apply(scores, self.rows, target, factor, options, 1.0, False)
        else:
            total: Tensor = FusedRows.apply(scores, self.rows, target, factor, options, scale, True)
            return total
        return losses.reshape(shape) if reduction == "none" else losses.sum() * scale

    def __repr__(self) -> str:
        return f"<loss {self.__name__}>"


class FusedRows(torch.autograd.Function):
    """Loss forwards, gradient kept for the way back; from there on the reference."""

    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        rows: Rows,
        target: Tensor,
        factor: Tensor | None,
        options: Mapping[str, Any],
        scale: float,
        summed: bool,
    ) -> Tensor:
        gradient = None
        needs_gradient = ctx.needs_input_grad[0]
        losses, gradient = _compute(scores, rows, target, factor, options, scale, needs_gradient)
        ctx.save_for_backward(scores, target, factor)
        ctx.rest = rows, options, scale, summed
        ctx.gradient = gradient
        if not summed:
            return losses
        return (losses.sum(dtype=torch.float64) * scale).to(losses.dtype)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        rows, options, scale, summed = ctx.rest
        gradient, ctx.gradient = ctx.gradient, None
        if torch.is_grad_enabled():  # this way back is itself going to be differentiated
            scores, target, factor = ctx.saved_tensors
            losses = rows.reference(scores, target, factor, options)
            (gradient,) = torch.autograd.grad(
                (losses * (scale * grad_output)).sum(), scores, create_graph=True
            )
            return gradient, None, None, None, None, None, None
        if gradient is None:
            scores, target, factor = ctx.saved_tensors
            _, gradient = _compute(scores, rows, target, factor, options, scale, True)
        if not summed:
            gradient.mul_(grad_output[:, None])
        elif grad_output.device.type != "cpu":
            gradient.mul_(grad_output)
        else:
            upstream = grad_output.item()
            if upstream != 1:
                gradient.mul_(upstream)
        return gradient, None, None, None, None, None, None


def _compute(
    scores: Tensor,
    rows: Rows,
    target: Tensor,
    factor: Tensor | None,
    options: Mapping[str, Any],
    scale: float,
    needs_gradient: bool,
) -> tuple[Tensor, Any]:
    """Return the losses of the rows and, if it is needed, their gradient times ``scale``."""
    if scores.device.type == "cpu" and scores.dtype in STORED_TYPES:
        missing = cpu.unavailable()
        if not missing:
            scores = scores.detach().contiguous()
            gradient = buffers.take(scores, scores.dtype) if needs_gradient else None
            target = target.contiguous()
            factor = None if factor is None else factor.contiguous()
            return rows.kernel(scores, target, factor, options, scale, gradient), gradient
        warn_once(f"{missing}: Ravine computes with plain PyTorch operations, which is slower")
    if not needs_gradient:
        with torch.no_grad():
            return rows.reference(scores, target, factor, options), None
    with torch.enable_grad():
        leaf = scores.detach().requires_grad_()
        losses = rows.reference(leaf, target, factor, options)
        (gradient,) = torch.autograd.grad((losses * scale).sum(), leaf)
    return losses.detach(), gradient


def _check_target(
    name: str, input: Tensor, target: object, expected: torch.Size, dim: int
) -> None:
    """Raise unless the target is a tensor of the shape that goes with the input."""
    if not isinstance(target, Tensor):
        raise ArgumentError(
            f"{name}: the target is no tensor", got=type(target).__name__, expected="a tensor"
        )
    if target.is_complex() or target.dtype == torch.bool:
        raise ArgumentError(
            f"{name}: targets cannot be of type {target.dtype}",
            expected="integer classes, or probabilities in a float type",
        )
    if target.shape != expected:
        classes = input.shape[dim]
        hint = f"the classes are dimension {dim} of the input here"
        if input.ndim > 2 and dim in (-1, input.ndim - 1) and (
            target.shape == input.shape[:1] + input.shape[2:]
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
    if target.device != input.device:
        raise ArgumentError(
            f"{name}: input and target are on different devices",
            got=f"input on {input.device}, target on {target.device}",
        )
