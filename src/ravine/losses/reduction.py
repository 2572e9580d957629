"""The reduction of losses by plain operations, which autograd and transforms see."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ravine.losses.arguments import is_at_hand


def reduced(
    losses: Tensor,
    reduction: str,
    normalizer: float | Tensor | None,
    amount: Callable[[], Tensor | int],
) -> Tensor:
    """Return the losses, their sum, or their sum divided by the normalizer or the amount.

    Args:
        losses: weighted losses, of any shape.
        reduction: "mean", "sum" or "none".
        normalizer: what a mean divides by, or None for the amount.
        amount: returns what a mean divides by else: how many losses there are, or the sum of their
            weights. Where that is 0 the mean is 0, and so is its slope.
    """
    if reduction == "none":
        return losses
    total = losses.sum()
    if reduction == "sum":
        return total
    if normalizer is not None:
        return total / normalizer
    divisor = amount()
    if not isinstance(divisor, Tensor):
        return total / divisor
    divisor = divisor.to(total.dtype)
    return torch.where(divisor == 0, 0.0, total / torch.where(divisor == 0, 1.0, divisor))


def weights_sum(weight: Tensor | None, losses: Tensor) -> Tensor | int:
    """Return the sum of the weights, or how many losses there are where none has a weight."""
    return losses.numel() if weight is None else weight.sum(dtype=losses.dtype)


def divisor_of(normalizer: float | Tensor, input: Tensor) -> float | Tensor:
    """Return the normalizer as a float64 number: on the input's device, not waited for, if it is there."""
    if (
        isinstance(normalizer, Tensor)
        and normalizer.device == input.device
        and not is_at_hand(normalizer)
    ):
        there: Tensor = normalizer.detach().to(torch.float64).reshape(())
        return there
    return float(normalizer)


def reciprocal(amount: float | Tensor) -> float | Tensor:
    """Return 1 / amount, or 0 for 0."""
    if isinstance(amount, Tensor):
        return torch.where(amount == 0, 0.0, 1.0 / amount)
    return 1.0 / amount if amount != 0 else 0.0
