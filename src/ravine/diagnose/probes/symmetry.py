"""Units that are copies of each other. Cost: a comparison of each layer's rows, twice."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.run import at_end

NEAR = 1e-5
"""Rows closer than this share of their size are the same."""


@dataclass(frozen=True)
class Symmetry:
    """Layers whose units all begin with the same weights, and those that end so.

    Attributes:
        first: names of the weights whose rows are all equal before the first step, without the last
            layer: its units differ by their targets.
        last: those of them whose rows are equal after the run as well.
    """

    first: tuple[str, ...]
    last: tuple[str, ...]


def symmetry(evidence: Evidence) -> Symmetry:
    """Compare the rows of every hidden layer's weight."""
    first = same_rows(evidence.fresh().model)
    last = set(same_rows(at_end(evidence).model)) if first else set()
    return Symmetry(first, tuple(name for name in first if name in last))


@torch.no_grad()
def same_rows(model: nn.Module) -> tuple[str, ...]:
    """Return the weights of two and more dimensions whose rows are all the same, but for the last.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 1))
    >>> _ = nn.init.constant_(model[0].weight, 0.1)
    >>> same_rows(model)
    ('0.weight',)
    """
    # A table of symbols has a row for each symbol, not for a unit: its columns are the units.
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    weights = [(name, p) for name, p in model.named_parameters() if p.ndim > 1]
    return tuple(
        name
        for name, p in weights[:-1]
        if p.requires_grad and _equal(p.detach().T if id(p) in tables else p.detach())
    )


def _equal(weight: Tensor) -> bool:
    rows = weight.flatten(1)
    size = rows.abs().max()
    return len(rows) > 1 and bool((rows - rows[:1]).abs().max() <= NEAR * size)
