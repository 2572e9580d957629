"""The loss of the best constant answer, and the program's first loss beside it.

Cost: one forward pass, 200 losses of 256 rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from ravine.diagnose.evidence import Evidence


@dataclass(frozen=True)
class Baseline:
    """What answers without looking reach.

    Attributes:
        first: the program's loss before the first step, in evaluation mode.
        constant: the loss of the best constant output; NaN where none could be found.
        spread: the standard deviation of the program's first outputs.
    """

    first: float
    constant: float
    spread: float


def baseline(evidence: Evidence) -> Baseline:
    """Search for the constant output with the smallest loss, from the mean of the outputs."""
    fresh = evidence.fresh()
    inputs, targets = (part[:256] for part in evidence.sample)
    fresh.model.eval()
    with torch.no_grad():
        output = fresh.model(inputs)
        first = _loss(evidence, fresh, output, targets)
    starts = [output.mean(0).double()]
    if targets.is_floating_point() and targets.shape == output.shape:
        starts += [targets.double().mean(0), targets.double().median(0).values]
    values = []
    for start in starts:
        constant = start.to(output.dtype).clone().requires_grad_()
        optimizer = torch.optim.Adam([constant], lr=0.1)
        for _ in range(100):
            optimizer.zero_grad()
            try:
                loss: Any = fresh.loss(constant.expand(output.shape), targets)
                loss.backward()
            except (RuntimeError, ValueError):  # a probability that left its range
                break
            values.append(float(loss.detach()))
            optimizer.step()
    finite = [value for value in values if math.isfinite(value)]
    return Baseline(first, min(finite, default=math.nan), float(output.std()))


def _loss(evidence: Evidence, fresh: object, output: torch.Tensor, targets: torch.Tensor) -> float:
    try:
        return float(fresh.loss(output, targets))  # type: ignore[attr-defined]
    except (RuntimeError, ValueError):
        return math.nan
