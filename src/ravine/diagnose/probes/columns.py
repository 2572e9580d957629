"""Features that tell nothing new, and classes that are rare. Cost: one pass over 2,048 rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ravine.diagnose.evidence import Evidence

MOST = 2000
"""Columns beyond which repeats are not looked for."""


@dataclass(frozen=True)
class Columns:
    """What columns and classes hold.

    Attributes:
        constant: the numbers of the columns that never vary.
        repeated: pairs of columns that are the same, the first of each kind and a later one.
        columns: how many there are.
        classes: how often each class occurs, the most frequent first; empty for numbers.
    """

    constant: tuple[int, ...]
    repeated: tuple[tuple[int, int], ...]
    columns: int
    classes: tuple[int, ...]


def columns(evidence: Evidence) -> Columns:
    """Look at the first rows of the training data; of sequences and images every place is a column."""
    inputs, targets = evidence.sample
    table = inputs.reshape(len(inputs), -1)
    constant = (table == table[:1]).all(0)
    return Columns(
        constant=tuple(torch.nonzero(constant).flatten().tolist()),
        repeated=_repeated(table[:, ~constant], torch.nonzero(~constant).flatten().tolist()),
        columns=table.shape[1],
        classes=_counts(targets, evidence.kind),
    )


def _repeated(table: torch.Tensor, numbers: list[int]) -> tuple[tuple[int, int], ...]:
    if not 1 < len(numbers) <= MOST:
        return ()
    _, kind = np.unique(table.T.contiguous().cpu().numpy(), axis=0, return_inverse=True)
    first: dict[int, int] = {}
    found = []
    for number, one in zip(numbers, kind.ravel().tolist(), strict=True):
        if one in first:
            found.append((first[one], number))
        else:
            first[one] = number
    return tuple(found)


def _counts(targets: torch.Tensor, kind: str) -> tuple[int, ...]:
    if kind == "numbers":
        return ()
    labels = targets.argmax(1) if kind == "one-hot" else targets.flatten()
    counts = torch.unique(labels, return_counts=True)[1]
    return tuple(sorted(counts.tolist(), reverse=True))
