"""What a quick baseline learns of the data, in cross-validation.

Cost: 2 x 5 small models of scikit-learn on up to 1,000 rows, about a second.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.arrays import FEWEST_ROWS, Arrays, arrays, valid_arrays

ROWS = 1000
FOLDS = 5
CERTAIN = 3.0
"""Standard errors between a baseline and chance below which it has learned nothing."""


@dataclass(frozen=True)
class Learnable:
    """A forest or a linear model, whichever does better on rows that it was not fitted to.

    Attributes:
        quality: accuracy or R2 in cross-validation on the training rows.
        chance: that of the best constant.
        sigmas: by how many standard errors it is better than answers that do not look.
        predicted: the cross-validated answers: probabilities (rows, classes), or numbers (rows,).
        targets: what they should be: places among ``labels``, or numbers.
        labels: the classes that occur; empty for numbers.
        on_valid: the quality on the validation rows of a model of all training rows; NaN without.
        rows: the numbers of the rows that were used, in the order of the answers.
    """

    quality: float
    chance: float
    sigmas: float
    predicted: NDArray[np.float64]
    targets: NDArray[Any]
    labels: tuple[int, ...]
    on_valid: float
    rows: NDArray[np.int64]


def learnable(evidence: Evidence) -> Learnable | None:
    """Fit the baselines; None where rows are too few or have more than one target."""
    return learned(evidence.probe(arrays), evidence.probe(valid_arrays))


def learned(data: Arrays | None, valid: Arrays | None = None, rows: int = ROWS) -> Learnable | None:
    """Fit the baselines to tables."""
    if data is None or len(data.inputs) < FEWEST_ROWS:
        return None
    # Drawn without replacement: rows may come in the order of their class.
    chosen = np.random.default_rng(0).permutation(len(data.inputs))[:rows]
    X, y = data.inputs[chosen], data.targets[chosen]
    labels: tuple[int, ...] = ()
    if data.classes:
        found, y = np.unique(y, return_inverse=True)
        labels = tuple(int(value) for value in found)
        if len(labels) < 2 or int(np.bincount(y).min()) < 2:
            return None
    elif float(np.std(y)) == 0:
        return None
    best: Learnable | None = None
    for make in _models(data.classes):
        predicted = _cross_validated(make, X, y, len(labels))
        quality, chance, sigmas = _scored(predicted, y, data.classes)
        if best is None or quality > best.quality:
            on_valid = math.nan if valid is None else _on(make, X, y, valid, labels)
            best = Learnable(quality, chance, sigmas, predicted, y, labels, on_valid, chosen)
    return best


def _models(classes: bool) -> list[Any]:
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if classes:
        return [
            lambda: ExtraTreesClassifier(60, min_samples_leaf=2, random_state=0),
            lambda: make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=100)),
        ]
    return [
        lambda: ExtraTreesRegressor(60, min_samples_leaf=2, random_state=0),
        lambda: make_pipeline(StandardScaler(), RidgeCV()),
    ]


def _cross_validated(make: Any, X: Any, y: Any, classes: int) -> NDArray[np.float64]:
    from sklearn.model_selection import KFold, StratifiedKFold

    kind = StratifiedKFold if classes else KFold
    folds = kind(
        min(FOLDS, int(np.bincount(y).min())) if classes else FOLDS, shuffle=True, random_state=0
    )
    predicted = np.zeros((len(y), classes) if classes else len(y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that has not converged is good enough here
        for fitted, held in folds.split(X, y):
            model = make().fit(X[fitted], y[fitted])
            if classes:
                predicted[np.ix_(held, model.classes_)] = model.predict_proba(X[held])
            else:
                predicted[held] = model.predict(X[held])
    return predicted


def _scored(predicted: Any, y: Any, classes: bool) -> tuple[float, float, float]:
    rows = len(y)
    if classes:
        quality = float((predicted.argmax(1) == y).mean())
        chance = float(np.bincount(y).max() / rows)
        return quality, chance, (quality - chance) / max(chance * (1 - chance) / rows, 1e-12) ** 0.5
    quality = float(1 - np.mean((predicted - y) ** 2) / np.var(y))
    spread = float(np.std(predicted))
    # Out of fold, the mean of the others is a little lower where the own target is high.
    correlation = float(np.corrcoef(predicted, y)[0, 1]) if spread > 0 else 0.0
    return quality, 0.0, correlation * rows**0.5


def _on(make: Any, X: Any, y: Any, valid: Arrays, labels: tuple[int, ...]) -> float:
    if valid.inputs.shape[1] != X.shape[1]:
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        told = make().fit(X, y).predict(valid.inputs)
    if labels:
        return float((np.asarray(labels)[told] == valid.targets).mean())
    spread = float(np.var(valid.targets))
    return float(1 - np.mean((told - valid.targets) ** 2) / spread) if spread else math.nan
