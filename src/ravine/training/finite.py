"""Whether numbers are finite, and the error for those that are not."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ravine.errors import NonFiniteError

if TYPE_CHECKING:
    from ravine.training.loop import Loop

__all__ = ["all_finite", "finite_everywhere", "gradients", "is_finite", "nonfinite_error", "worst"]


def is_finite(tensor: Tensor) -> bool:
    """Return whether every element is finite."""
    tensor = tensor.detach()
    # A finite sum has finite terms only, and is quick; a sum may overflow all the same.
    if not tensor.is_complex() and math.isfinite(tensor.sum().item()):
        return True
    return bool(torch.isfinite(tensor).all())


def all_finite(tensors: list[Tensor]) -> bool:
    """Return whether every element of every tensor is finite, with one look at the device."""
    if not tensors:
        return True
    # As in `is_finite`; in absolute values it would be another pass.
    sums = torch.stack([_sum(tensor.detach()).to(torch.float32) for tensor in tensors])
    return math.isfinite(sums.sum().item()) or all(is_finite(tensor) for tensor in tensors)


def _sum(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor).sum() if tensor.is_complex() else tensor.sum()


def finite_everywhere(loop: Loop, tensors: list[Tensor]) -> bool:
    """Return whether every element is finite in every process; all of them ask."""
    fine = all_finite([getattr(tensor, "to_local", lambda t=tensor: t)() for tensor in tensors])
    return not any(loop.devices.team.sums([0.0 if fine else 1.0]))


def gradients(loop: Loop) -> list[Tensor]:
    """Return the gradients that have to be finite.

    None with a scaled loss (float16): the scaler looks at them, and expects some that are not.
    """
    if loop.devices.precision.state_dict():
        return []
    return [p.grad for p in loop.model.parameters() if p.grad is not None]


def worst(named: Iterable[tuple[str, Tensor]]) -> str:
    """Say which of some tensors are not finite; an empty text if all are."""
    bad = [name for name, tensor in named if not is_finite(tensor)]
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    return f"not finite: {', '.join(bad[:3])}{more}" if bad else ""


def nonfinite_error(
    loop: Loop, what: str, step: int, *, epoch: int | None = None, got: str | None = None
) -> NonFiniteError:
    """Build the error for a step, counted from 1, of a loop.

    Args:
        loop: where it stands decides epoch and lr.
        what: what was seen first.
        step: where it was seen.
        epoch: of that step; the loop's when None.
        got: what is known of the cause; which weights are not finite when None.
    """
    lr = loop.lr
    if got is None:
        got = worst(loop.model.named_parameters()) or "the weights are finite"
    error = NonFiniteError(
        what,
        where=f"step {step}, epoch {epoch or loop.epoch + 1}",
        got=f"lr {lr:g}; {got}",
        expected="a finite loss and finite weights",
        do=f"lower lr (try {lr / 10:g}), clip the gradient (clip_norm=1), warm up "
        "(lr=warmup(100) >> ...), or look for extreme values in the data",
    )
    error.step = step
    return error
