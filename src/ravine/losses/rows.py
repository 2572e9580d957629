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
from ravine.errors import ArgumentTypeError, ShapeError, unknown_option
from ravine.losses import buffers
from ravine.losses.arguments import (
    check_device,
    check_input,
    check_is_tensor,
    check_not_empty,
    check_reduction,
    check_weight,
    is_batched,
    needs_gradient,
    plain_only,
    readable,
)
from ravine.losses.fused import HALVES
from ravine.losses.kernels.target_scan import scan, total

IGNORED = -(2**63)
"""What stands for the class of left out rows where a loss has none."""


class Rows(Protocol):
    """The formula of a row loss; tensors are (rows, classes), (rows,) or (rows, classes), (rows,)."""

    def check_options(self, values: Mapping[str, Any]) -> None:
        """Raise for an option out of its bounds."""

    def settle(self, scores: Tensor, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options in the form that the others want, or raise."""

    def check_target(
        self, scores: Tensor, target: Tensor, factor: Tensor | None, options: Mapping[str, Any]
    ) -> None:
        """Raise for the first target that the loss is not defined for."""

    def amount(self, target: Tensor, factor: Tensor | None, options: Mapping[str, Any]) -> Tensor:
        """Return what the mean divides by; may be differentiated, and looks at no value."""

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
        """Return all hyperparameters, checked against their bounds."""
        for option in hyperparameters:
            if option not in self.hyperparameters:
                known = [*self.hyperparameters, "weight", "reduction", "normalizer"]
                raise unknown_option(self.__name__, option, known)
        values = {**self.hyperparameters, **hyperparameters}
        self.rows.check_options(values)
        return values

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
        check_is_tensor(name, target)
        dim = values.pop("dim", -1)
        if input.ndim == 0 or not -input.ndim <= dim < input.ndim:
            raise ShapeError(
                f"{name}: there is no dimension {dim} for the classes",
                got=f"input {tuple(input.shape)}",
            )
        last = dim in (-1, input.ndim - 1)
        scores = input if last else input.movedim(dim, -1)
        shape, classes = scores.shape[:-1], scores.shape[-1]
        soft = target.is_floating_point()
        if soft and not last and target.shape == input.shape:
            target = target.movedim(dim, -1)
        _check_target(name, input, target, scores.shape if soft else shape, dim)
        check_not_empty(name, shape.numel(), reduction, normalizer)
        if classes == 0:
            raise ShapeError(f"{name}: there are no classes", got=f"input {tuple(input.shape)}")
        wide = torch.float64 if input.dtype is torch.float64 else torch.float32
        if scores.ndim != 2:
            scores = scores.reshape(-1, classes)
            target = target.reshape(-1, classes) if soft else target.reshape(-1)
        kind = wide if soft else torch.int64
        if target.dtype is not kind:
            target = target.to(kind)
        factor = None
        if weight is not None:
            factor = check_weight(name, weight, shape, input).reshape(-1).to(wide)
        options = self.rows.settle(scores, values)
        if plain_only(input, target, weight) or needs_gradient(
            target, weight, normalizer, *options.values()
        ):
            losses = self._plain(scores, target, factor, options, reduction, normalizer)
            return losses.reshape(shape) if reduction == "none" else losses
        wanted = reduction == "mean" and normalizer is None
        amount = self._amount(scores, target, factor, options, wanted)
        if normalizer is not None:
            amount = float(normalizer)
        scale = 1.0
        if reduction == "mean":
            scale = 1.0 / amount if amount > 0 else 0.0
        summed = reduction != "none"
        if scores.requires_grad and torch.is_grad_enabled():
            # One tuple: each argument of apply costs a fraction of a microsecond.
            rest = self.rows, target, factor, options, scale, summed
            found: Tensor = FusedRows.apply(scores, rest)
        else:
            losses, _ = _compute(scores, self.rows, target, factor, options, scale, False)
            found = _sum(losses, scale) if summed else losses
        return found if summed else found.reshape(shape)

    def _amount(
        self,
        scores: Tensor,
        target: Tensor,
        factor: Tensor | None,
        options: Mapping[str, Any],
        wanted: bool,
    ) -> float:
        """Check the target and return what the mean divides by, if that is wanted."""
        if target.ndim == 1 and _compiled(scores):
            class_weight = options.get("class_weight")
            wrong, amount = scan(
                target.contiguous(),
                scores.shape[1],
                options.get("ignore_index", IGNORED),
                None if factor is None else factor.contiguous(),
                class_weight,
                torch.float64 if scores.dtype is torch.float64 else torch.float32,
            )
            if not wrong:
                return amount
        if readable(scores, target):
            self.rows.check_target(scores, target, factor, options)
        if not wanted or (target.ndim == 2 and factor is None):
            return float(len(target))
        return float(self.rows.amount(target, factor, options))

    def _plain(
        self,
        scores: Tensor,
        target: Tensor,
        factor: Tensor | None,
        options: Mapping[str, Any],
        reduction: str,
        normalizer: float | Tensor | None,
    ) -> Tensor:
        if readable(scores, target):
            self.rows.check_target(scores.detach(), target.detach(), factor, options)
        losses = _plain_losses(self.rows, scores, target, factor, options)
        if reduction == "none":
            return losses
        total = losses.sum()
        if reduction == "sum":
            return total
        if normalizer is not None:
            return total / normalizer
        amount = self.rows.amount(target, factor, options).to(total.dtype)
        return torch.where(amount > 0, total / torch.where(amount > 0, amount, 1.0), 0.0)

    def __repr__(self) -> str:
        return f"<loss {self.__name__}>"


class FusedRows(torch.autograd.Function):
    """Loss forwards, gradient kept for the way back; from there on the reference."""

    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        rest: tuple[Rows, Tensor, Tensor | None, Mapping[str, Any], float, bool],
    ) -> Tensor:
        rows, target, factor, options, scale, summed = rest
        # Half-precision slopes wait for their factors: see `backward`.
        now = summed or scores.dtype not in HALVES
        losses, gradient = _compute(scores, rows, target, factor, options, scale, now)
        ctx.save_for_backward(scores, target, factor)
        ctx.rest = rows, options, scale, summed
        ctx.gradient = gradient
        return _sum(losses, scale) if summed else losses

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        rows, options, scale, summed = ctx.rest
        # Asked for even where it is not needed: it is what notices scores changed meanwhile.
        scores, target, factor = ctx.saved_tensors
        if torch.is_grad_enabled():  # this way back is itself going to be differentiated
            losses = rows.reference(scores, target, factor, options)
            (gradient,) = torch.autograd.grad(
                (losses * (scale * grad_output)).sum(), scores, create_graph=True
            )
            return gradient, None
        gradient, ctx.gradient = ctx.gradient, None
        half = scores.dtype in HALVES
        if is_batched(grad_output):  # many gradients at once (vmap)
            wide = scores.float() if half else scores
            _, gradient = _compute(wide, rows, target, factor, options, scale, True)
            gradient = gradient * (grad_output if summed else grad_output[..., None])
            return gradient.to(scores.dtype), None
        total = summed and grad_output.is_cpu
        upstream = grad_output.item() if total else 1.0
        if half and total and upstream != 1:
            # All factors before rounding, so that a scaled loss saves what float16 cannot hold.
            gradient, scale, upstream = None, scale * upstream, 1.0
        if gradient is None:
            wide = scores.float() if half and not total else scores
            _, gradient = _compute(wide, rows, target, factor, options, scale, True)
        if not total:
            gradient.mul_(grad_output if summed else grad_output[:, None])
        elif upstream != 1:
            gradient.mul_(upstream)
        return gradient if gradient.dtype is scores.dtype else gradient.to(scores.dtype), None


def _plain_losses(
    rows: Rows,
    scores: Tensor,
    target: Tensor,
    factor: Tensor | None,
    options: Mapping[str, Any],
) -> Tensor:
    """Return the loss of each row, times its factor, with its slope by the factor at factor 0 too."""
    if factor is None or not (factor.requires_grad or plain_only(factor)):
        return rows.reference(scores, target, factor, options)
    kept = (factor != 0) | scores.isfinite().all(1)
    losses = rows.reference(torch.where(kept[:, None], scores, 0.0), target, None, options)
    return torch.where(kept, factor * losses, 0.0)


def _sum(losses: Tensor, scale: float) -> Tensor:
    if _compiled(losses):
        return torch.scalar_tensor(total(losses) * scale, dtype=losses.dtype)
    return (losses.sum(dtype=torch.float64) * scale).to(losses.dtype)


def _compiled(tensor: Tensor) -> bool:
    """Whether kernels run on this tensor."""
    if not tensor.is_cpu:
        return False
    missing = cpu.unavailable()
    if missing:
        warn_once(f"{missing}: Ravine computes with plain PyTorch operations, which is slower")
    return not missing


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
    scores = scores.detach()
    if _compiled(scores):
        scores = scores.contiguous()
        gradient = buffers.take(scores, scores.dtype) if needs_gradient else None
        target = target.contiguous()
        factor = None if factor is None else factor.contiguous()
        return rows.kernel(scores, target, factor, options, scale, gradient), gradient
    if not needs_gradient:
        with torch.no_grad():
            return rows.reference(scores, target, factor, options), None
    with torch.enable_grad():
        leaf = scores.requires_grad_()
        losses = rows.reference(leaf, target, factor, options)
        (gradient,) = torch.autograd.grad((losses * scale).sum(), leaf)
    return losses.detach(), gradient


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
