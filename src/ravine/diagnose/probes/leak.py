"""What validation data shares with the training data, and features that are the target.

Cost: a hash of every row in memory, one correlation a column.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.arrays import FEWEST_ROWS, Numbers, arrays


@dataclass(frozen=True)
class Leak:
    """Rows and columns that tell too much.

    Attributes:
        shared: the share of validation rows whose inputs are those of a training row.
        expected: the share of training rows whose inputs are those of another training row: so
            many would be shared by chance.
        rows: how many validation rows were looked at.
        column: the feature that is the target up to a factor, or None.
        correlation: of that feature and the target.
        others: the largest correlation of another feature.
    """

    shared: float
    expected: float
    rows: int
    column: int | None
    correlation: float
    others: float


def leak(evidence: Evidence) -> Leak:
    """Compare all rows that are in memory, else the first ones."""
    task = evidence.fresh().task
    train = task.train[0] if isinstance(task.train, tuple) else evidence.sample[0]
    valid = evidence.valid_sample
    if valid is not None and isinstance(task.valid, tuple):
        valid = task.valid
    shared, expected = (0.0, 0.0) if valid is None else shares(train, valid[0])
    column, most, second = _telling(evidence)
    return Leak(shared, expected, 0 if valid is None else len(valid[0]), column, most, second)


def shares(train: Tensor, valid: Tensor) -> tuple[float, float]:
    """Return the share of rows of ``valid`` that are in ``train``, and of rows met twice there.

    >>> import torch
    >>> shares(torch.tensor([[1.0], [2.0], [2.0], [3.0]]), torch.tensor([[1.0], [9.0]]))
    (0.5, 0.5)
    """
    if train.shape[1:] != valid.shape[1:] or not len(valid):
        return 0.0, 0.0
    known = Counter(_keys(train))
    inside = sum(key in known for key in _keys(valid)) / len(valid)
    again = sum(count for count in known.values() if count > 1) / len(train)
    return inside, again


def _keys(rows: Tensor) -> list[bytes]:
    table = np.ascontiguousarray(rows.detach().cpu().reshape(len(rows), -1).numpy())
    return [row.tobytes() for row in table]


def _telling(evidence: Evidence) -> tuple[int | None, float, float]:
    data = evidence.probe(arrays)
    if data is None or len(data.inputs) < FEWEST_ROWS or data.inputs.shape[1] < 3:
        return None, 0.0, 0.0
    if data.classes and len(np.unique(data.targets)) > 2:
        return None, 0.0, 0.0  # the number of a class is only a name
    sizes = np.abs(correlations(data.inputs, data.targets.astype(float)))
    order = np.argsort(sizes)
    column = int(order[-1]) if sizes[order[-1]] > 0.995 else None
    return column, float(sizes[order[-1]]), float(sizes[order[-2]])


def correlations(inputs: Numbers, target: Numbers) -> Numbers:
    """Return Pearson's correlation of every column with a target; 0 for constant ones."""
    centred, wanted = inputs - inputs.mean(0), target - target.mean()
    norms = np.linalg.norm(centred, axis=0) * np.linalg.norm(wanted)
    found: Numbers = np.divide(wanted @ centred, norms, out=np.zeros(len(norms)), where=norms > 0)
    return found
