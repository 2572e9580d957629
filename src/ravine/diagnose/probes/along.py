"""The loss along the updates of the first steps. Cost: 32 steps with two backward passes each."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.program import Fresh
from ravine.tasks.seeding import seeded

STEPS = 32


@dataclass(frozen=True)
class Along:
    """Where updates end on the parabola of their own batch's loss.

    Attributes:
        alphas: of each step: -1 where it begins, 0 at the parabola's minimum, 1 as high behind it as
            it began; -1 too where the loss curves downwards along it.
    """

    alphas: tuple[float, ...]

    @property
    def middle(self) -> float:
        """The median; NaN without a step."""
        return median(self.alphas) if self.alphas else math.nan


def along(evidence: Evidence) -> Along:
    """Take the first steps and fit a parabola to loss and slope before and after each."""
    fresh = evidence.fresh()
    fresh.model.train()
    found = []
    weights: list[Tensor] = [p for p in fresh.model.parameters() if p.requires_grad]
    for number, batch in enumerate(islice(_batches(fresh), STEPS)):
        before, slopes = _measured(fresh, batch, weights, number)
        kept = [w.detach().clone() for w in weights]
        fresh.optimizer.step()
        update = [w.detach() - old for w, old in zip(weights, kept, strict=True)]
        after, later = _measured(fresh, batch, weights, number)
        values = before, _dot(slopes, update), after, _dot(later, update)
        if all(map(math.isfinite, values)) and values[1] != 0:
            found.append(alpha(*values))
    return Along(tuple(found))


def alpha(before: float, slope: float, after: float, later: float) -> float:
    """Return where a step of length 1 ends on the parabola through two values and two slopes.

    The parabola is the least-squares one through f(0), f'(0), f(1), f'(1).

    Args:
        before, slope: value and slope along the step where it begins.
        after, later: the same where it ends.

    >>> alpha(1.0, -2.0, 0.0, 0.0), alpha(1.0, -4.0, 1.0, 4.0)  # (1 - t)^2 and (1 - 2 t)^2
    (0.0, 1.0)
    """
    matrix = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 1], [0, 1, 2]], dtype=torch.float64)
    wanted = torch.tensor([before, slope, after, later], dtype=torch.float64)
    linear, curved = map(float, torch.linalg.lstsq(matrix, wanted[:, None]).solution[1:, 0])
    if curved <= 0 or linear >= 0:
        return -1.0 if linear < 0 else 1.0
    least = -linear / (2 * curved)
    return round((1 - least) / least, 9)


def _batches(fresh: Fresh) -> Iterable[tuple[Tensor, Tensor]]:
    for epoch in range(1, fresh.epochs + 1):
        yield from fresh.train.epoch(epoch)


def _measured(
    fresh: Fresh, batch: tuple[Tensor, Tensor], weights: list[Tensor], number: int
) -> tuple[float, list[Tensor]]:
    fresh.optimizer.zero_grad()
    with seeded(fresh.seed + number):  # the same dropout before and after
        loss: Any = fresh.loss(fresh.model(batch[0]), batch[1])
        loss.backward()
    slopes = [torch.zeros_like(w) if w.grad is None else w.grad.detach().clone() for w in weights]
    return float(loss.detach()), slopes


def _dot(one: list[Tensor], other: list[Tensor]) -> float:
    return sum(float((a.double() * b.double()).sum()) for a, b in zip(one, other, strict=True))
