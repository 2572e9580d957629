"""Steps that are left out because a gradient is NaN or infinite: by request, or by a GradScaler."""

from __future__ import annotations

import math
from typing import Any

from ravine.optim.buckets import Group
from ravine.optim.plan import Plan

SKIPPED = "skipped_steps"
"""The entry of a group that counts them; they travel with the state."""


def skipped_steps(groups: list[Group]) -> int:
    """Return how many steps were left out."""
    return max((group.get(SKIPPED, 0) for group in groups), default=0)


def count(groups: list[Group]) -> None:
    """Note that a step was left out."""
    for group in groups:
        group[SKIPPED] = group.get(SKIPPED, 0) + 1


def is_finite(plan: Plan, squares: float) -> bool:
    """Whether every gradient is finite, on every rank, given the sum of their squares.

    Squares of float64 overflow where the gradient does not; then the elements are looked at. (Those
    of smaller types cannot: their squares are summed in float64.)
    """
    return math.isfinite(squares) or plan.count_nonfinite() == 0


def numbers_from_scaler(optimizer: Any) -> dict[str, float] | None:
    """Return this step's numbers with the scale of the loss; None if the step is to be left out.

    `torch.amp.GradScaler` sets ``found_inf``, and ``grad_scale`` unless it has unscaled already, for
    the time of a step. From then on the optimizer's program divides by the scale: by 1 in steps
    without a scaler, which changes no bit.
    """
    if float(optimizer.found_inf):
        count(optimizer.param_groups)
        return None
    scale = getattr(optimizer, "grad_scale", None)
    if scale is not None and "grad_scale" not in optimizer.program.hyperparameters:
        optimizer._read_scaled()
    return {"norm": math.nan, "grad_scale": 1.0 if scale is None else float(scale)}
