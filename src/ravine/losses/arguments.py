"""What is checked and settled before any loss is computed."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ravine.errors import ArgumentError, ArgumentTypeError, ShapeError

Reduction = Literal["mean", "sum", "none"]
REDUCTIONS = ("mean", "sum", "none")


def check_reduction(name: str, reduction: str, normalizer: float | Tensor | None) -> None:
    """Raise unless the reduction is known and the normalizer goes with it."""
    if reduction not in REDUCTIONS:
        raise ArgumentError(
            f"{name}: unknown reduction {reduction!r}", expected="one of " + ", ".join(REDUCTIONS)
        )
    if normalizer is None:
        return
    if reduction != "mean":
        raise ArgumentError(
            f"{name}: normalizer goes with reduction='mean' only", got=f"reduction={reduction!r}"
        )
    if not float(normalizer) > 0:
        raise ArgumentError(f"{name}: normalizer must be > 0", got=repr(normalizer))


def check_input(name: str, input: Tensor) -> None:
    """Raise unless the input is a float tensor."""
    if not isinstance(input, Tensor):
        raise ArgumentTypeError(
            f"{name}: the input is no tensor", got=type(input).__name__, expected="a tensor"
        )
    if not input.is_floating_point():
        raise ArgumentTypeError(
            f"{name}: the input is not of a float type",
            got=str(input.dtype),
            do="call input.float()",
        )


def check_not_empty(name: str, count: int, reduction: str, normalizer: object) -> None:
    """Raise where a mean would be 0 / 0."""
    if count == 0 and reduction == "mean" and normalizer is None:
        raise ShapeError(
            f"{name}: the batch is empty, so its mean is not defined",
            do="skip the batch, or use reduction='sum' or normalizer=",
        )


def check_same_shape(name: str, input: Tensor, target: Tensor) -> None:
    """Raise where broadcasting would silently compare every input with every target."""
    if not isinstance(target, Tensor):
        raise ArgumentTypeError(
            f"{name}: the target is no tensor", got=type(target).__name__, expected="a tensor"
        )
    if input.shape != target.shape:
        hint = "make the shapes equal"
        if input.squeeze().shape == target.squeeze().shape:
            hint = "call input.squeeze(-1) or target.unsqueeze(-1) on the one that needs it"
        raise ShapeError(
            f"{name}: input and target differ in shape",
            got=f"input {tuple(input.shape)}, target {tuple(target.shape)}",
            expected="the same shape; nothing is broadcast",
            do=hint,
        )
    if input.device != target.device:
        raise ArgumentError(
            f"{name}: input and target are on different devices",
            got=f"input on {input.device}, target on {target.device}",
        )


def check_weight(name: str, weight: Tensor, shape: torch.Size) -> Tensor:
    """Return sample weights in the form of ``shape``: one for each element, or for each row.

    Raises:
        ShapeError: the weight's shape is not the beginning of ``shape``.
        ArgumentError: a weight is negative, NaN or infinite.
    """
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        got = str(weight.dtype) if isinstance(weight, Tensor) else type(weight).__name__
        raise ArgumentTypeError(f"{name}: weight must be a float tensor", got=got)
    if weight.shape != shape[: weight.ndim]:
        raise ShapeError(
            f"{name}: the sample weights do not fit",
            got=f"weight {tuple(weight.shape)}",
            expected=f"{tuple(shape)}, or its first dimensions (one weight a row)",
        )
    values = weight.detach()
    if values.numel() and not bool((values.min() >= 0) & torch.isfinite(values.sum())):
        wrong = (~(torch.isfinite(values) & (values >= 0))).nonzero()
        where = tuple(wrong[0].tolist()) if len(wrong) else "the sum"
        raise ArgumentError(
            f"{name}: sample weights must be finite and >= 0",
            where=f"weight at {where}",
            got=str(float(values[wrong[0].unbind()])) if len(wrong) else "an infinite sum",
        )
    return weight.reshape(weight.shape + (1,) * (len(shape) - weight.ndim)).expand(shape)


def plain_only(*tensors: Tensor | None) -> bool:
    """Whether a fused pass would not be seen by what is at work: functorch, compile, forward mode."""
    if torch.compiler.is_compiling():
        return True
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    if torch.autograd.forward_ad._current_level >= 0:
        return True
    return any(t is not None and type(t) not in (Tensor, torch.nn.Parameter) for t in tensors)
