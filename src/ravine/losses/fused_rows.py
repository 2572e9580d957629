# mypy: disable-error-code="no-untyped-call"
"""One visit to each row for loss and gradient, and its place in autograd."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from ravine.engine import cpu
from ravine.engine.choice import warn_once
from ravine.losses import buffers
from ravine.losses.arguments import is_batched, plain_only
from ravine.losses.bounds import Bound
from ravine.losses.fused import HALVES
from ravine.losses.kernels.target_scan import scan
from ravine.losses.kernels.target_scan import total as total_of

IGNORED = -(2**63)
"""What stands for the class of left out rows where a loss has none."""


class Rows(Protocol):
    """The formula of a row loss; tensors are (rows, classes), (rows,) or (rows, classes), (rows,)."""

    takes_soft: bool
    """Whether a target may be (rows, classes) in a float type, instead of classes."""

    bounds: Mapping[str, Bound]
    """Of the options: option -> (test, the bound in words)."""

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


class PlainRows(Rows, Protocol):
    """Rows for which no kernel pays: the reference is all there is."""

    takes_soft: bool = False

    def kernel(
        self,
        scores: Tensor,
        target: Tensor,
        factor: Tensor | None,
        options: Mapping[str, Any],
        scale: float,
        gradient: Tensor | None,
    ) -> Tensor:
        if gradient is None:
            return self.reference(scores, target, factor, options)
        with torch.enable_grad():
            leaf = scores.requires_grad_()
            losses = self.reference(leaf, target, factor, options)
            (found,) = torch.autograd.grad((losses * scale).sum(), leaf)
        # Autograd gives `where` a slope of 0 or 1 at NaN.
        gradient.copy_(found.masked_fill(losses.isnan()[:, None], torch.nan))
        return losses.detach()


class SmallRows(Rows, Protocol):
    """Rows with a kernel that serves a small batch by one call."""

    small: int
    """Below how many scores it does."""

    def small_batch(
        self,
        scores: Tensor,
        target: Tensor,
        factor: Tensor | None,
        options: Mapping[str, Any],
        divisor: float,
        gradient: Tensor | None,
    ) -> tuple[bool, float, float]:
        """Return whether a class is out of range, the losses' sum and what scales the gradient.

        Target checked, sum and gradient by one call of a kernel; integer targets only.
        """


Request = tuple[Rows, Tensor, Tensor | None, Mapping[str, Any], bool, float, bool]
"""A loss, targets, factors, options, whether losses are summed, what the sum is divided by (0 for the
weights' sum), whether targets are checked. A plain tuple: each argument costs a part of a microsecond.
"""


class FusedRows(torch.autograd.Function):
    """Loss forwards, gradient kept for the way back; from there on the reference."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, request: Request) -> Tensor:
        # Half-precision slopes wait for their factors: see `backward`.
        now = request[4] or scores.dtype not in HALVES
        found, ctx.gradient, scale, target, factor = first_pass(scores, request, now)
        ctx.save_for_backward(scores, target, factor)
        ctx.rest = request[0], request[3], scale, request[4]
        return found

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        rows, options, scale, summed = ctx.rest
        # Asked for even where it is not needed: it is what notices scores changed meanwhile.
        scores, target, factor = ctx.saved_tensors
        half = scores.dtype in HALVES
        if torch.is_grad_enabled():  # this way back is itself going to be differentiated
            wide = scores.float() if half else scores
            losses = rows.reference(wide, target, factor, options)
            # A row's slope first, then the gradient that arrives: that may stand for many (vmap),
            # and autograd does not run inside of that.
            (slope,) = torch.autograd.grad(losses.sum(), wide, create_graph=True)
            upstream = scale * grad_output
            gradient = slope * (upstream if summed else upstream[..., None])
            return gradient.to(scores.dtype), None
        gradient, ctx.gradient = ctx.gradient, None
        if is_batched(grad_output):  # many gradients at once (vmap)
            wide = scores.float() if half else scores
            _, gradient = compute(wide, rows, target, factor, options, scale, True)
            gradient = gradient * (grad_output if summed else grad_output[..., None])
            return gradient.to(scores.dtype), None
        total = summed and grad_output.is_cpu
        arriving = grad_output.item() if total else 1.0
        if half and total and arriving != 1:
            # All factors before rounding, so that a scaled loss saves what float16 cannot hold.
            gradient, scale, arriving = None, scale * arriving, 1.0
        if gradient is None:
            wide = scores.float() if half and not total else scores
            _, gradient = compute(wide, rows, target, factor, options, scale, True)
        if not total:
            gradient.mul_(grad_output if summed else grad_output[:, None])
        elif arriving != 1:
            gradient.mul_(arriving)
        return gradient if gradient.dtype is scores.dtype else gradient.to(scores.dtype), None


def plain_losses(
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


def first_pass(
    scores: Tensor, request: Request, needs_gradient: bool
) -> tuple[Tensor, Any, float, Tensor, Tensor | None]:
    """Check the targets; return the loss, the gradient, its scale, and the targets and factors used."""
    rows, target, factor, options, summed, divisor, checked = request
    on_cpu = compiled(scores)
    if on_cpu:
        scores, target = scores.contiguous(), target.contiguous()
        factor = None if factor is None else factor.contiguous()
        if summed and target.ndim == 1 and scores.numel() < getattr(rows, "small", 0):
            gradient = buffers.take(scores, scores.dtype) if needs_gradient else None
            wrong, total, scale = cast("SmallRows", rows).small_batch(
                scores, target, factor, options, divisor, gradient
            )
            if not wrong:
                wide = torch.float64 if scores.dtype is torch.float64 else torch.float32
                found = torch.scalar_tensor(total * scale, dtype=wide)
                return found, gradient, scale, target, factor
    target, factor, amount = settled_targets(
        scores, rows, target, factor, options, divisor == 0, checked, on_cpu
    )
    divisor = divisor or amount
    scale = 1.0 / divisor if divisor != 0 else 0.0
    losses, gradient = compute(scores, rows, target, factor, options, scale, needs_gradient)
    found = sum_of(losses, scale) if summed else losses
    return found, gradient, scale, target, factor


def sum_of(losses: Tensor, scale: float) -> Tensor:
    """Return the sum of the losses, added in float64, times ``scale``."""
    if compiled(losses):
        return torch.scalar_tensor(total_of(losses) * scale, dtype=losses.dtype)
    return (losses.sum(dtype=torch.float64) * scale).to(losses.dtype)


def settled_targets(
    scores: Tensor,
    rows: Rows,
    target: Tensor,
    factor: Tensor | None,
    options: Mapping[str, Any],
    wanted: bool,
    checked: bool,
    on_cpu: bool,
) -> tuple[Tensor, Tensor | None, float]:
    """Check the targets; return them, their factors, and what the mean divides by if it is wanted.

    Unchecked classes that are out of range make their rows NaN: no kernel ever sees them.
    """
    if target.ndim == 1 and on_cpu:
        wide = torch.float64 if scores.dtype is torch.float64 else torch.float32
        ignored = options.get("ignore_index", IGNORED)
        class_weight = options.get("class_weight")
        wrong, amount = scan(target, scores.shape[1], ignored, factor, class_weight, wide)
        if not wrong:
            return target, factor, amount
    if checked:
        rows.check_target(scores, target, factor, options)
    elif target.ndim == 1:
        target, factor = without_strangers(target, factor, scores, options)
    if not wanted or (target.ndim == 2 and factor is None):
        return target, factor, float(len(target))
    return target, factor, float(rows.amount(target, factor, options))


def without_strangers(
    target: Tensor, factor: Tensor | None, scores: Tensor, options: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """Give rows whose class is out of range the class 0 and the factor NaN; look at no value."""
    ignored = options.get("ignore_index", IGNORED)
    known = ((target >= 0) & (target < scores.shape[1])) | (target == ignored)
    wide = torch.float64 if scores.dtype is torch.float64 else torch.float32
    if factor is None:
        factor = torch.ones_like(target, dtype=wide)
    return torch.where(known, target, 0), torch.where(known, factor, torch.nan)


def compiled(tensor: Tensor) -> bool:
    """Whether kernels run on this tensor."""
    if not tensor.is_cpu:
        return False
    missing = cpu.unavailable()
    if missing:
        warn_once(f"{missing}: Ravine computes with plain PyTorch operations, which is slower")
    return not missing


def compute(
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
    if compiled(scores):
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
