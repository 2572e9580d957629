"""What is measured at a watched step, in plain numbers."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

LENGTH = 50
"""How many measurements a running median is taken over."""

MOST = 2**20
"""How many numbers of a layer's output are looked at, at most: of larger ones the first rows."""


@dataclass(frozen=True)
class Seen:
    """One watched step.

    Attributes:
        step: its number, from 1.
        gradient_norm: over all weights that the optimizers hold.
        bad: names of weights whose gradient is not finite.
        update_ratio: norm(update) / norm(weight) over all weights; NaN if nothing can be said.
        moved: whether any weight changed.
        uncleared: whether gradients of the step before were still there; None if unknown.
        dead: by layer, the share of units that were zero for every row seen so far.
        saturated: by layer, the share of pre-activations at the bounds in this batch.
        promised: by how much the loss would fall if the gradient told all: -(gradient . update).
    """

    step: int
    gradient_norm: float
    bad: tuple[str, ...]
    update_ratio: float
    moved: bool
    uncleared: bool | None
    dead: dict[str, float]
    saturated: dict[str, float]
    promised: float = math.nan


@dataclass
class Units:
    """Which units of a layer were ever above zero.

    Attributes:
        peak: by unit, the largest it ever was.
        rows: how many rows were seen.
        alive: whether all units were above zero, as the last count has it: that stays so, and
            nothing more is looked at.
    """

    peak: Tensor | None = None
    rows: int = 0
    alive: bool = False

    def add(self, output: Tensor) -> None:
        """Look at an output (rows, units) or (rows, channels, ...)."""
        looked_at = first_rows(output)
        self.rows += len(looked_at)
        same = self.peak is not None and len(self.peak) == looked_at.shape[1]
        if same and self.alive:
            return
        # Images have their units second, sequences last; a unit is dead in either if all of it is,
        # and the second dimension of a sequence is hardly ever dead as a whole.
        now = looked_at.amax((0, *range(2, looked_at.ndim)))
        self.peak = torch.maximum(self.peak, now) if same and self.peak is not None else now
        self.alive = False

    @property
    def dead(self) -> float:
        """The share of units that were never above zero."""
        return 0.0 if self.peak is None else float((self.peak <= 0).sum()) / len(self.peak)


def saturation(inputs: Tensor, edge: float = 5.0) -> Tensor:
    """Return the share of pre-activations of 5 and more in absolute value, where they are.

    >>> saturation(torch.tensor([0.0, -6.0, 7.0, 1.0]))
    tensor(0.5000)
    """
    far = first_rows(inputs).abs() >= edge
    return far.sum() / max(far.numel(), 1)


def read(found: list[Tensor]) -> list[Any]:
    """Return the numbers of tensors of one shape; GPUs are waited for once."""
    if all(one.is_cpu for one in found):
        return [one.tolist() for one in found]  # to gather them first costs three times as much
    numbers: list[Any] = torch.stack([one.to(found[0].device) for one in found]).tolist()
    return numbers


def first_rows(output: Tensor) -> Tensor:
    """Return as many rows of an output as are looked at."""
    output = output.detach()
    if output.ndim < 2 or output.numel() <= MOST:
        return output
    return output[: max(1, MOST // output[0].numel())]


@dataclass
class Running:
    """The median of the last measurements."""

    values: deque[float] = field(default_factory=lambda: deque(maxlen=LENGTH))

    def add(self, value: float) -> None:
        """Take a value in."""
        self.values.append(value)

    @property
    def median(self) -> float:
        """The median, NaN where there is nothing yet."""
        ordered = sorted(self.values)
        return ordered[len(ordered) // 2] if ordered else float("nan")
