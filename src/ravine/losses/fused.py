# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""An elementwise loss in autograd: the gradients of its one pass, kept for the way back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ravine.losses import executors
from ravine.losses.arguments import is_at_hand, is_batched
from ravine.losses.one_pass import Call, value_and_gradient

HALVES = (torch.float16, torch.bfloat16)


class FusedLoss(torch.autograd.Function):
    """Loss forwards, gradients kept for the way back; from there on the equation on whole tensors.

    Its differentiable arguments are the input and the equation's further tensors.
    """

    @staticmethod
    def forward(ctx: Any, call: Call, *inputs: Tensor) -> Tensor:
        # Half-precision slopes wait for their factors, unless these are likely to be 1: see `backward`.
        half = any(one.dtype in HALVES for one in inputs)
        now = not half or (call.reduction != "none" and is_at_hand(inputs[0]))
        needs = ctx.needs_input_grad[1:] if now else (False,) * len(inputs)
        result, gradients = value_and_gradient(call, inputs, needs)
        ctx.save_for_backward(call.target, call.weight, *inputs)
        ctx.rest = call.loss, call.values, call.reduction, call.scale, half
        ctx.gradients = gradients if now else None
        return result

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        loss, values, reduction, scale, half = ctx.rest
        # Asked for even where it is not needed: it is what notices an input changed meanwhile.
        target, weight, *inputs = ctx.saved_tensors
        needs = ctx.needs_input_grad[1:]
        # This way back may itself be differentiated, or see many gradients at once (vmap).
        if torch.is_grad_enabled() or is_batched(grad_output):
            slopes = loss.elements(tuple(inputs), target, weight, values)[1:]
            return None, *(
                (slope * (scale * grad_output)).to(one.dtype) if needed else None
                for slope, one, needed in zip(slopes, inputs, needs, strict=False)
            )
        # Given away at once: autograd may then make it x.grad without a copy. A second way back
        # computes it anew, to the same bits.
        gradients, ctx.gradients = ctx.gradients, None
        total = reduction != "none"
        factor = grad_output.item() if total and is_at_hand(grad_output) else grad_output
        if half and total and (isinstance(factor, Tensor) or factor != 1):
            # All factors before rounding, so that a scaled loss saves what float16 cannot hold.
            whole = factor.double() if isinstance(factor, Tensor) else factor
            gradients, scale, factor = None, whole * scale, 1.0
        if gradients is None:
            given = inputs
            if half and not total:
                given = [one.float() if one.dtype in HALVES else one for one in inputs]
                target = target if target.dtype is torch.float64 else target.to(torch.float32)
            # "sum" whatever was asked for: the values have been given, only the slopes are missing.
            call = Call(loss, target, weight, values, "sum", scale, looks=False)
            _, gradients = value_and_gradient(call, tuple(given), needs)
        found: list[Tensor | None] = [None]
        for gradient, one in zip(gradients, inputs, strict=True):
            if gradient is None:
                found.append(None)
                continue
            executors.multiply(gradient, factor)
            found.append(gradient if gradient.dtype is one.dtype else gradient.to(one.dtype))
        return tuple(found)
