"""Whether training and validation rows come from one distribution: a two-sample test by a classifier.

Cost: 5 forests on up to 1,000 rows, under a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.arrays import FEWEST_ROWS, Arrays, Numbers, arrays, valid_arrays

ROWS = 500


@dataclass(frozen=True)
class Shift:
    """How well the two parts can be told apart.

    Attributes:
        area: under the ROC curve of a forest that tells them by the inputs, on rows it was not
            fitted to; 0.5 where they are alike. One number, whatever the number of features, so
            that no correction for their number is needed.
        sigmas: by how many standard errors (Mann-Whitney) it is above 0.5.
        column: the feature that differs most between the parts, for words.
        labels: the largest difference of a cumulative share of the targets (Kolmogorov-Smirnov), or
            of a class's share (total variation).
        label_sigmas: by how many standard errors.
    """

    area: float
    sigmas: float
    column: int
    labels: float
    label_sigmas: float


def shift(evidence: Evidence) -> Shift | None:
    """Tell the parts apart; None without validation rows or with too few."""
    return shifted(evidence.probe(arrays), evidence.probe(valid_arrays))


def shifted(train: Arrays | None, valid: Arrays | None) -> Shift | None:
    """Tell two tables apart."""
    if train is None or valid is None or min(len(train.inputs), len(valid.inputs)) < FEWEST_ROWS:
        return None
    if train.inputs.shape[1] != valid.inputs.shape[1]:
        return None
    random = np.random.default_rng(0)
    parts = [part.inputs[random.permutation(len(part.inputs))[:ROWS]] for part in (train, valid)]
    area = _area(*parts)
    n, m = (len(part) for part in parts)
    sigmas = (area - 0.5) / math.sqrt((n + m + 1) / (12 * n * m))
    spread = np.maximum(parts[0].std(0), 1e-12)
    column = int(np.argmax(np.abs(parts[0].mean(0) - parts[1].mean(0)) / spread))
    distance = _distance(train, valid)
    rows = len(train.targets) * len(valid.targets) / (len(train.targets) + len(valid.targets))
    return Shift(area, sigmas, column, distance, distance * math.sqrt(rows) / 0.5)


def _area(one: Numbers, other: Numbers) -> float:
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    rows, of = np.concatenate([one, other]), np.repeat([0, 1], [len(one), len(other)])
    forest = ExtraTreesClassifier(60, min_samples_leaf=3, class_weight="balanced", random_state=0)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    told = cross_val_predict(forest, rows, of, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(of, told))


def _distance(train: Arrays, valid: Arrays) -> float:
    values = np.unique(np.concatenate([train.targets, valid.targets]))
    counts = [
        np.bincount(np.searchsorted(values, part.targets), minlength=len(values))
        / len(part.targets)
        for part in (train, valid)
    ]
    difference = counts[0] - counts[1]
    if train.classes:
        return float(np.abs(difference).sum() / 2)
    return float(np.abs(difference.cumsum()).max())
