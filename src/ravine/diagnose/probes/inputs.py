"""The scale of inputs and targets. Cost: one pass over the first 2,048 rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ravine.diagnose.evidence import Evidence


@dataclass(frozen=True)
class Scales:
    """Means and deviations over the training rows.

    Attributes:
        discrete: whether the inputs are whole numbers, such as tokens: then the rest says nothing.
        largest: the largest absolute input.
        offset: the largest absolute mean of a feature.
        spread: the largest and the smallest deviation of a feature that varies.
        constant: how many features do not vary, of how many.
        non_finite: how many inputs are NaN or infinite.
        target_spread, target_offset: deviation and absolute mean of targets that are numbers, else 0.
    """

    discrete: bool
    largest: float
    offset: float
    spread: tuple[float, float]
    constant: tuple[int, int]
    non_finite: int
    target_spread: float
    target_offset: float


def scales(evidence: Evidence) -> Scales:
    """Take the statistics of the first rows."""
    inputs, targets = evidence.sample
    bad = int((~torch.isfinite(inputs)).sum()) if inputs.is_floating_point() else 0
    flat = torch.nan_to_num(inputs.reshape(len(inputs), -1).double(), 0.0, 0.0, 0.0)
    deviation = flat.std(0, correction=0)
    varies = deviation > 1e-12 * flat.abs().amax(0).clamp(min=1e-300)
    spread = deviation[varies]
    numbers = targets.is_floating_point() and evidence.kind == "numbers"
    return Scales(
        discrete=not inputs.is_floating_point(),
        largest=float(flat.abs().max()),
        offset=float(flat.mean(0).abs().max()),
        spread=(float(spread.max()), float(spread.min())) if len(spread) else (0.0, 0.0),
        constant=(int((~varies).sum()), flat.shape[1]),
        non_finite=bad,
        target_spread=float(targets.double().std(0, correction=0).max()) if numbers else 0.0,
        target_offset=float(targets.double().mean(0).abs().max()) if numbers else 0.0,
    )
