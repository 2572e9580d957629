"""Whether the model can learn a few rows by heart. Cost: 150 steps of 16 rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.quality import quality
from ravine.diagnose.replay import evaluated

ROWS = 16
STEPS = 150


@dataclass(frozen=True)
class OneBatch:
    """The quality on the same few rows before and after training on nothing else.

    Attributes:
        rows: how many.
        before, after: accuracy or R2; NaN where output and targets do not fit each other.
        loss: the loss after it.
    """

    rows: int
    before: float
    after: float
    loss: float


def one_batch(evidence: Evidence) -> OneBatch:
    """Train all weights on the first rows with Adam, whatever the program's own optimizer is."""
    inputs, targets = (part[:ROWS] for part in evidence.sample)
    fresh = evidence.fresh()
    model = fresh.model.eval()  # neither dropout nor statistics of so few rows
    with torch.no_grad():
        before = quality(model(inputs), targets)
    weights = [p for p in model.parameters() if p.requires_grad]
    if weights:
        optimizer = torch.optim.Adam(weights, lr=0.01)
        for _ in range(STEPS):
            optimizer.zero_grad()
            try:
                loss: Any = fresh.loss(model(inputs), targets)
                loss.backward()
            except (RuntimeError, ValueError):  # a loss that refuses what it is given
                break
            optimizer.step()
    loss_after, after = evaluated(fresh, inputs, targets)
    return OneBatch(len(inputs), before, after, loss_after)
