# mypy: disable-error-code="no-untyped-call"
"""One visit to each row for loss and gradient, and its place in autograd."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ravine.losses import buffers, executors
from ravine.losses.arguments import is_at_hand, is_batched, plain_only
from ravine.losses.fused import HALVES
from ravine.losses.kernels.target_scan import scan
from ravine.losses.kernels.target_scan import total as total_of
from ravine.losses.reduction import reciprocal
from ravine.losses.row_formula import IGNORED, Arrived, RowBatch, Rows, Scale


class Request(NamedTuple):
    """What is wanted of a batch."""

    rows: Rows
    batch: RowBatch
    summed: bool
    """Whether the losses are summed."""
    divisor: float | Tensor
    """What the sum is divided by, on a GPU also a float64 number there; 0.0 for the weights' sum."""
    checked: bool
    """Whether targets are."""


class FusedRows(torch.autograd.Function):
    """Loss forwards, gradient kept for the way back; from there on the reference."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, request: Request) -> Tensor:
        # Half-precision slopes wait for their factors: see `backward`.
        now = request.summed or scores.dtype not in HALVES
        found, ctx.gradient, scale, used = first_pass(request, now)
        ctx.save_for_backward(scores, used.target, used.factor)
        ctx.rest = request.rows, used.options, scale, request.summed
        return found

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        rows, options, scale, summed = ctx.rest
        # Asked for even where it is not needed: it is what notices scores changed meanwhile.
        scores, target, factor = ctx.saved_tensors
        half = scores.dtype in HALVES
        if torch.is_grad_enabled():  # this way back is itself going to be differentiated
            wide = scores.float() if half else scores
            losses = rows.reference(RowBatch(wide, target, factor, options))
            # A row's slope first, then the gradient that arrives: that may stand for many (vmap),
            # and autograd does not run inside of that.
            (slope,) = torch.autograd.grad(losses.sum(), wide, create_graph=True)
            upstream = scale * grad_output
            gradient = slope * (upstream if summed else upstream[..., None])
            return gradient.to(scores.dtype), None
        gradient, ctx.gradient = ctx.gradient, None
        if is_batched(grad_output):  # many gradients at once (vmap)
            wide = scores.float() if half else scores
            _, gradient = compute(rows, RowBatch(wide, target, factor, options), scale, True)
            gradient = gradient * (grad_output if summed else grad_output[..., None])
            return gradient.to(scores.dtype), None
        total = summed and is_at_hand(grad_output)
        if summed and not total and executors.executor(rows, scores) == "gpu":
            batch = RowBatch(scores, target, factor, options)
            return _rescaled(rows, batch, scale, grad_output, gradient), None
        arriving = grad_output.item() if total else 1.0
        if half and total and arriving != 1:
            # All factors before rounding, so that a scaled loss saves what float16 cannot hold.
            gradient, scale, arriving = None, scale * arriving, 1.0
        if gradient is None:
            wide = scores.float() if half and not total else scores
            _, gradient = compute(rows, RowBatch(wide, target, factor, options), scale, True)
        if not total:
            gradient.mul_(grad_output if summed else grad_output[:, None])
        elif arriving != 1:
            gradient.mul_(arriving)
        return gradient if gradient.dtype is scores.dtype else gradient.to(scores.dtype), None


def _rescaled(
    rows: Rows, batch: RowBatch, scale: float | Tensor, grad_output: Tensor, gradient: Tensor | None
) -> Tensor:
    """Return the gradient times what arrives, which the host does not wait for.

    Where it is 1, what is there already stays; else all factors come before the rounding.
    """
    if not isinstance(scale, Tensor):
        scale = torch.full_like(grad_output, scale, dtype=torch.float64)
    factor = scale * grad_output if gradient is None else Arrived(scale, grad_output)
    found: Tensor = compute(rows, batch, factor, True, gradient)[1]
    return found


def plain_losses(rows: Rows, batch: RowBatch) -> Tensor:
    """Return the loss of each row, times its factor, with its slope by the factor at factor 0 too."""
    scores, target, factor, options = batch
    if factor is None or not (factor.requires_grad or plain_only(factor)):
        return rows.reference(batch)
    kept = (factor != 0) | scores.isfinite().all(1)
    scores = torch.where(kept[:, None], scores, 0.0)
    losses = rows.reference(RowBatch(scores, target, None, options))
    return torch.where(kept, factor * losses, 0.0)


def first_pass(
    request: Request, needs_gradient: bool
) -> tuple[Tensor, Any, float | Tensor, RowBatch]:
    """Check the targets; return the loss, the gradient, its scale, and the batch that was used."""
    rows, batch, summed, divisor, checked = request
    kind = executors.executor(rows, batch.scores)
    if kind:
        batch = _contiguous(batch)
    if kind == "cpu":
        scores = batch.scores
        if summed and batch.target.ndim == 1 and scores.numel() < getattr(rows, "small", 0):
            gradient = torch.empty_like(scores) if needs_gradient else None
            small: Any = rows  # SmallRows
            wrong, total, scale = small.small_batch(batch, divisor, gradient)
            if not wrong:
                wide = torch.float64 if scores.dtype is torch.float64 else torch.float32
                return (
                    torch.scalar_tensor(total * scale, dtype=wide, device="cpu"),
                    gradient,
                    scale,
                    batch,
                )
    wanted = not isinstance(divisor, Tensor) and divisor == 0
    batch, amount = settled_targets(rows, batch, wanted, checked, kind)
    scale = reciprocal(amount) if wanted else 1.0 / divisor
    losses, gradient = compute(rows, batch, scale, needs_gradient)
    return sum_of(losses, scale) if summed else losses, gradient, scale, batch


def _contiguous(batch: RowBatch) -> RowBatch:
    scores, target, factor, options = batch
    if (
        scores.is_contiguous()
        and target.is_contiguous()
        and (factor is None or factor.is_contiguous())
    ):
        return batch
    factor = None if factor is None else factor.contiguous()
    return RowBatch(scores.contiguous(), target.contiguous(), factor, options)


def sum_of(losses: Tensor, scale: float | Tensor) -> Tensor:
    """Return the sum of the losses, added in float64, times ``scale``."""
    if not isinstance(scale, Tensor) and executors.kind_of(losses) == "cpu":
        return torch.scalar_tensor(total_of(losses) * scale, dtype=losses.dtype, device="cpu")
    return (losses.sum(dtype=torch.float64) * scale).to(losses.dtype)


def settled_targets(
    rows: Rows, batch: RowBatch, wanted: bool, checked: bool, kind: executors.Kind
) -> tuple[RowBatch, float | Tensor]:
    """Check the targets; return the batch, and what the mean divides by if it is wanted.

    A number on a device stays there.
    Unchecked classes that are out of range make their rows NaN: no kernel ever sees them.
    """
    scores, target, factor, options = batch
    if target.ndim == 1 and kind == "gpu":
        if not checked:
            batch = without_strangers(batch)
            return batch, _scanned(batch)[1] if wanted else 1.0
        wrong, amount = _scanned(batch).tolist()  # the one time that the host waits
        if not wrong:
            return batch, amount
    if target.ndim == 1 and kind == "cpu":
        wide = torch.float64 if scores.dtype is torch.float64 else torch.float32
        ignored = options.get("ignore_index", IGNORED)
        class_weight = options.get("class_weight")
        wrong, amount = scan(target, scores.shape[1], ignored, factor, class_weight, wide)
        if not wrong:
            return batch, amount
    if checked:
        rows.check_target(batch)
    elif target.ndim == 1:
        batch = without_strangers(batch)
    if not wanted or (target.ndim == 2 and factor is None):
        return batch, float(len(target))
    found = rows.amount(batch)
    return batch, float(found) if is_at_hand(found) else found


def _scanned(batch: RowBatch) -> Tensor:
    from ravine.losses.kernels import target_scan_gpu  # which imports Triton

    scores, target, factor, options = batch
    ignored, class_weight = options.get("ignore_index", IGNORED), options.get("class_weight")
    return target_scan_gpu.scan(target, scores.shape[1], ignored, factor, class_weight)


def without_strangers(batch: RowBatch) -> RowBatch:
    """Give rows whose class is out of range the class 0 and the factor NaN; look at no value."""
    scores, target, factor, options = batch
    ignored = options.get("ignore_index", IGNORED)
    known = ((target >= 0) & (target < scores.shape[1])) | (target == ignored)
    wide = torch.float64 if scores.dtype is torch.float64 else torch.float32
    if factor is None:
        factor = torch.ones_like(target, dtype=wide)
    factor = torch.where(known, factor, torch.nan)
    return RowBatch(scores, torch.where(known, target, 0), factor, options)


def compute(
    rows: Rows,
    batch: RowBatch,
    scale: Scale,
    needs_gradient: bool,
    gradient: Tensor | None = None,
) -> tuple[Tensor, Any]:
    """Return the losses of the rows and, if it is needed, their gradient times ``scale``.

    A kernel fills ``gradient``, if that is given; on a GPU it may lie where the scores do.
    """
    batch = batch._replace(scores=batch.scores.detach())
    if executors.executor(rows, batch.scores):
        batch = _contiguous(batch)
        if needs_gradient and gradient is None:
            gradient = buffers.take(batch.scores, batch.scores.dtype)
        return rows.kernel(batch, scale, gradient), gradient
    if not needs_gradient:
        with torch.no_grad():
            return rows.reference(batch), None
    assert not isinstance(scale, Arrived)  # which goes with a kernel
    with torch.enable_grad():
        leaf = batch.scores.requires_grad_()
        losses = rows.reference(batch)
        (gradient,) = torch.autograd.grad((losses * scale).sum(), leaf)
    return losses.detach(), gradient
