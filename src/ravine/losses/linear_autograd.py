# mypy: disable-error-code="no-untyped-call"
"""The place of the chunked linear cross-entropy in autograd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ravine.engine.element_types import number_type
from ravine.losses import executors, linear_products
from ravine.losses.arguments import is_at_hand, is_batched
from ravine.losses.fused_rows import sum_of
from ravine.losses.linear_chunks import Batch, Terms, sweep
from ravine.losses.linear_classes import Head, arrived, gradients, results, visit
from ravine.losses.linear_reference import reference
from ravine.losses.linear_state import Known


@dataclass(frozen=True)
class Call:
    """What a call wants besides its three inputs."""

    batch: Batch
    terms: Terms
    scale: float | Tensor
    summed: bool
    with_lse: bool
    wanted: tuple[bool, bool, bool]


def loss_of(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, call: Call
) -> tuple[Tensor, Tensor | None]:
    """Return the loss, as one number or of each row, and logsumexp if it is asked for.

    Half precision on a GPU goes in chunks of classes, all else in chunks of rows.
    """
    by_classes = linear_products.serve(hidden)
    if any(call.wanted):
        chunked = ChunkedClasses if by_classes else ChunkedRows
        both = chunked.apply(hidden, weight, bias, call)
        return both if call.with_lse else (both, None)
    if by_classes:
        return visited(Head(hidden, weight, bias, call.batch, call.terms, call.wanted), call)[:2]
    losses, lse, _ = evaluate(hidden, weight, bias, call=call)
    return losses, lse


def evaluate(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, *, call: Call
) -> tuple[Tensor, Tensor | None, Sequence[Tensor | None]]:
    """Return the loss, logsumexp, and the gradients that could be found on the way."""
    # Slopes of single losses wait for what comes back for each.
    wanted = call.wanted if call.summed else (False, False, False)
    # Autocast would round the float32 products that are asked for here.
    with torch.autocast(hidden.device.type, enabled=False):
        found = sweep(
            hidden,
            weight,
            bias,
            call.batch,
            call.terms,
            scale=call.scale,
            with_lse=call.with_lse,
            wanted=wanted,
        )
    losses = sum_of(found.losses, call.scale) if call.summed else found.losses
    return losses, found.lse, found.gradients


class ChunkedRows(torch.autograd.Function):
    """Loss and gradients forwards, their factor on the way back; from there on the reference."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, call: Call) -> Any:
        losses, lse, gradients = evaluate(hidden, weight, bias, call=call)
        ctx.save_for_backward(hidden, weight, bias)
        ctx.call = call
        ctx.gradients = gradients if call.summed else None
        ctx.set_materialize_grads(False)
        return (losses, lse) if call.with_lse else losses

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_lse: Tensor | None = None) -> Any:
        call = ctx.call
        # Asked for even where they are not needed: it is what notices that they changed meanwhile.
        inputs = ctx.saved_tensors
        if grad is None and grad_lse is None:
            return None, None, None, None
        if _is_seen_through(grad, grad_lse):
            return (*_by_reference(inputs, call, grad, grad_lse), None)
        gradients, ctx.gradients = ctx.gradients, None
        if not call.summed or grad_lse is not None:
            gradients = _again(inputs, call, grad, grad_lse)
        elif grad is not None:
            if gradients is None:  # used up by an earlier way back
                _, _, gradients = evaluate(*inputs, call=call)
            factor = grad.item() if is_at_hand(grad) else grad
            for gradient in gradients:
                if gradient is not None:
                    executors.multiply(gradient, factor)
        found = [
            None if gradient is None else gradient.to(t.dtype)
            for gradient, t in zip(gradients, inputs, strict=True)
        ]
        return (*found, None)


def visited(head: Head, call: Call) -> tuple[Tensor, Tensor, Known]:
    """Return the loss, logsumexp, and what the way back wants to know."""
    with torch.autocast(head.hidden.device.type, enabled=False):
        known = visit(head)
        losses, lse = results(head, known)
    return sum_of(losses, call.scale) if call.summed else losses, lse, known


class ChunkedClasses(torch.autograd.Function):
    """Loss forwards, gradients on the way back; from there on the reference."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, call: Call) -> Any:
        head = Head(hidden, weight, bias, call.batch, call.terms, call.wanted)
        losses, lse, ctx.known = visited(head, call)
        ctx.save_for_backward(hidden, weight, bias)
        ctx.call = call
        ctx.set_materialize_grads(False)
        return (losses, lse) if call.with_lse else losses

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_lse: Tensor | None = None) -> Any:
        call, inputs = ctx.call, ctx.saved_tensors
        if grad is None and grad_lse is None:
            return None, None, None, None
        if _is_seen_through(grad, grad_lse):
            return (*_by_reference(inputs, call, grad, grad_lse), None)
        hidden, weight, bias = inputs
        head = Head(hidden, weight, bias, call.batch, call.terms, call.wanted)
        losses = head.hidden.new_zeros((), dtype=torch.float64) if grad is None else grad.double()
        with torch.autocast(head.hidden.device.type, enabled=False):
            slopes = arrived(
                head,
                ctx.known,
                losses * call.scale if call.summed else losses,
                None if grad_lse is None else grad_lse.double(),
            )
            found = gradients(head, ctx.known, *slopes)
        return (*found, None)


def _is_seen_through(*arriving: Tensor | None) -> bool:
    """Whether this way back is itself going to be differentiated, or stands for many at once."""
    return torch.is_grad_enabled() or any(g is not None and is_batched(g) for g in arriving)


def _again(
    inputs: tuple[Tensor, Tensor, Tensor | None],
    call: Call,
    grad: Tensor | None,
    grad_lse: Tensor | None,
) -> Sequence[Tensor | None]:
    """Return the gradients for a slope of its own in each row, by computing the logits again."""
    batch, hidden = call.batch, inputs[0]
    factor = batch.factor
    if grad is None:
        factor = hidden.new_zeros(len(hidden), dtype=number_type(hidden.dtype))
    elif call.summed:
        each = (grad * call.scale).to(number_type(hidden.dtype))
        factor = each.expand(len(hidden)) if factor is None else factor * each
    else:
        factor = grad if factor is None else factor * grad
    with torch.autocast(hidden.device.type, enabled=False):
        found = sweep(
            *inputs,
            replace(batch, factor=factor),
            call.terms,
            lse_slope=grad_lse,
            wanted=call.wanted,
        )
    return found.gradients


def _by_reference(
    inputs: tuple[Tensor, Tensor, Tensor | None],
    call: Call,
    grad: Tensor | None,
    grad_lse: Tensor | None,
) -> list[Tensor | None]:
    with_graph = torch.is_grad_enabled()
    with torch.enable_grad(), torch.autocast(inputs[0].device.type, enabled=False):
        losses, lse = reference(*inputs, call.batch.target, call.batch.factor, call.terms)
        value = (losses * call.scale).sum() if call.summed else losses
        pairs = [(o, g) for o, g in ((value, grad), (lse, grad_lse)) if g is not None]
        leaves = [t for t, want in zip(inputs, call.wanted, strict=True) if want]
        found = iter(
            torch.autograd.grad(
                [o for o, _ in pairs],
                leaves,  # type: ignore[arg-type]
                [g for _, g in pairs],
                create_graph=with_graph,
            )
        )
    return [next(found) if want else None for want in call.wanted]
