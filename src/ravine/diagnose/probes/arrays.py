"""Inputs and targets as scikit-learn takes them. Cost: a copy of the first 2,048 rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ravine.diagnose.evidence import Evidence

MOST_COLUMNS = 512
FEWEST_ROWS = 40
"""Below this a cross-validated baseline says nothing."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Arrays:
    """Rows as tables.

    Attributes:
        inputs: float64 (rows, columns).
        targets: int64 class numbers, or float64 numbers; (rows,).
        classes: whether the targets are classes.
    """

    inputs: Numbers
    targets: NDArray[Any]
    classes: bool


def arrays(evidence: Evidence) -> Arrays | None:
    """Return the training rows as tables; None where a row has more than one target."""
    return table(*evidence.sample, kind=evidence.kind)


def valid_arrays(evidence: Evidence) -> Arrays | None:
    """Return the validation rows as tables, None where there are none."""
    rows = evidence.valid_sample
    return None if rows is None else table(*rows, kind=evidence.kind)


def table(inputs: Tensor, targets: Tensor, kind: str) -> Arrays | None:
    """Return rows as tables: images flattened, symbols as they are and counted."""
    if kind == "one-hot":
        targets = targets.argmax(1)
    if targets.numel() != len(targets):
        return None
    flat = torch.nan_to_num(inputs.reshape(len(inputs), -1).double(), 0.0, 0.0, 0.0)
    if not inputs.is_floating_point() and flat.shape[1] > 1 and int(inputs.max()) < 256:
        symbols = int(inputs.max()) + 1
        rows = inputs.reshape(len(inputs), -1).long().clamp(min=0)
        counts = torch.zeros(len(inputs), symbols, dtype=torch.double)
        counts.scatter_add_(1, rows, torch.ones(rows.shape, dtype=torch.double))
        flat = torch.cat([flat, counts], 1)
    if flat.shape[1] > MOST_COLUMNS:
        every = -(-flat.shape[1] // MOST_COLUMNS)
        flat = flat[:, ::every]
    y = targets.reshape(-1)
    classes = kind != "numbers"
    return Arrays(flat.numpy(), (y.long() if classes else y.double()).cpu().numpy(), classes)
