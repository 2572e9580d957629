# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""How much a predicted mask and the true one overlap, of two classes: three sums over a sample's places.

They are one pass over logits and masks. The way back is another one, which writes the gradient, all
factors in it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ravine.engine.element_types import number_type
from ravine.engine.equation import Equation
from ravine.engine.functions import exp, where
from ravine.losses.arguments import is_batched, needs_gradient, plain_only
from ravine.losses.sample_pass import SamplePass


def overlap(x, y, *, ignored):
    """What a place adds to the sums of p y, p (1 - y) and (1 - p) y."""
    # Branches, not abs: see `binary_cross_entropy`.
    e = exp(where(x > 0, -x, x))
    larger = 1 / (1 + e)
    p = where(x > 0, larger, e * larger)
    miss = where(x > 0, e * larger, larger)
    out = y == ignored
    return where(out, 0.0, p * y), where(out, 0.0, p * (1 - y)), where(out, 0.0, miss * y)


def overlap_slope(x, y, *, ignored, of_true, of_false):
    """The derivative by x of ``of_true`` p y + ``of_false`` p (1 - y)."""
    e = exp(where(x > 0, -x, x))
    larger = 1 / (1 + e)
    steep = e * larger * larger  # p (1 - p)
    slope = steep * (y * of_true + (1 - y) * of_false)
    return where(y == ignored, 0.0, slope)


def outside(y, *, ignored):
    """Targets are shares."""
    return where(((y >= 0) & (y <= 1)) | (y == ignored), 0.0, 1.0)


_overlap, _overlap_slope = Equation(overlap), Equation(overlap_slope)
_sums = SamplePass(_overlap, added=("right", "excess", "missed"))
_slope = SamplePass(_overlap_slope, written="slope")
_outside = SamplePass(Equation(outside), added=("outside",), counts=True)


def mask_overlaps(
    input: Tensor, target: Tensor, counts: Tensor | None, ignore_index: int
) -> tuple[Tensor, ...]:
    """Return the sums of p y, p (1 - y) and (1 - p) y of each sample (N,), p = sigmoid(input).

    Args:
        input: logits (N, ...), any float type.
        target: numbers from 0 to 1, of the same shape and any type.
        counts: (N,) which samples count, or None if all do. The sums of the others are 0.
        ignore_index: the target of places that are left out.
    """
    wide = number_type(input.dtype)
    narrow = target.is_floating_point() and target.itemsize <= wide.itemsize
    y = target if narrow else target.to(wide)
    if counts is not None:
        y = torch.where(counts.reshape(-1, *(1,) * (y.ndim - 1)), y, float(ignore_index))
    if plain_only(input, y) or needs_gradient(y) or not _sums.serves(input):
        x = _without(input, y, ignore_index)
        parts = _overlap.reference(x, y.to(x.dtype), ignored=ignore_index)
        return tuple(part.flatten(1).sum(1) for part in parts)
    found: Tensor = Overlaps.apply(input, y.contiguous(), ignore_index)
    return found.unbind(0)


def all_shares(target: Tensor, ignore_index: int) -> bool:
    """Whether targets (N, ...) in a float type are seen to be from 0 to 1, at one look.

    If not, it is not said that they are not.
    """
    if plain_only(target) or not _outside.serves(target):
        return False
    return not bool(_outside((target.contiguous(),), {"ignored": ignore_index}).any())


class Overlaps(torch.autograd.Function):
    """The three sums (3, N), in the type of the arithmetic."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, target: Tensor, ignored: int) -> Tensor:
        ctx.save_for_backward(input, target)
        ctx.ignored = ignored
        sums = _sums((input.detach().contiguous(), target), {"ignored": ignored})
        return sums.to(number_type(input.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        input, target = ctx.saved_tensors
        # This way back may itself be differentiated, or see many gradients at once (vmap).
        if torch.is_grad_enabled() or is_batched(grad):
            x = _without(input, target, ctx.ignored)
            grad = grad.reshape(*grad.shape, *(1,) * (x.ndim - 1))
            slope = _overlap_slope.reference(x, target.to(x.dtype), **_numbers(grad, ctx.ignored))
            return slope.to(input.dtype), None, None
        given = (input.detach().contiguous(), target)
        return _slope(given, _numbers(grad.double(), ctx.ignored)), None, None


def _numbers(grad: Tensor, ignored: int) -> dict[str, Any]:
    """Return the numbers of `overlap_slope` for the gradients by the sums: (1 - p) y falls as p y rises."""
    right, excess, missed = grad.unbind(0)
    return {"ignored": ignored, "of_true": right - missed, "of_false": excess}


def _without(input: Tensor, target: Tensor, ignored: int) -> Tensor:
    """Return logits in the type of the arithmetic, 0 where they are left out.

    They must not reach the equation: 0 * NaN on the way back is NaN.
    """
    wide = number_type(input.dtype)
    return torch.where(target == ignored, 0.0, input.to(wide))
