"""What a chunk of the classes of a linear head is, and what is kept of its rows from chunk to chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Chunk(NamedTuple):
    """The rows that count and some of the classes."""

    start: int
    """The first of the classes."""
    classes: int
    """How many there are in all."""
    logits: Tensor
    """(rows, some classes) float32, without bias and soft cap; a row may be longer than that."""
    target: Tensor
    """(rows,) classes among all, or (rows, some classes) probabilities, float32."""
    bias: Tensor | None
    """(all classes,) float32, or None."""
    class_weight: Tensor | None
    """(all classes,) float32, or None."""

    @property
    def place(self) -> slice:
        """These classes among all."""
        return slice(self.start, self.start + self.logits.shape[1])


@dataclass(frozen=True)
class Seen:
    """One number for each row that counts: what has been added up of the classes so far."""

    top: Tensor
    """The largest logit, float32; what follows is float64, but ``own``."""
    rest: Tensor
    """The sum of exp(x - top) over the classes below it."""
    ties: Tensor
    """How many classes have it."""
    total: Tensor
    """The sum of the weights of the classes, sum a."""
    inner: Tensor
    """The sum of a (x - top)."""
    own: Tensor
    """The logit of the target, float32, where all weight is on it (`is_plain`)."""


@dataclass(frozen=True)
class Known:
    """One number for each row that counts, when all classes have passed by."""

    top: Tensor
    others: Tensor
    """The sum of exp(x - top) over all classes but one that has the largest logit; float64."""
    total: Tensor
    own: Tensor
    lse: Tensor
    """top + log1p(others), float64."""
    losses: Tensor
    """Without sample weight and z-loss; float64."""


class Slopes(NamedTuple):
    """One float32 for each row: what makes slopes of exp(x - top)."""

    top: Tensor
    others: Tensor
    inverse: Tensor
    """1 / (1 + others)."""
    total: Tensor
    by_loss: Tensor
    """What the slope of the loss is multiplied with."""
    by_lse: Tensor
    """What the slope of logsumexp is multiplied with."""
    at_own: Tensor
    """The slope of the loss by the target's logit of a plain row, times ``by_loss``."""
