"""`breast-cancer`: a linear model with one logit, for logistic regression or a linear SVM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ravine.tasks.preparation import Standardiser, class_entropy, split_rows
from ravine.tasks.seeding import seeded
from ravine.tasks.task import Task


def breast_cancer(seed: int) -> Task:
    """Tell benign from malignant in 569 tumours (30 measurements) by a linear model.

    One logit a tumour, ``x @ w + b``, with target 1 for benign and 0 for malignant, both (N, 1).
    The loss decides the method: ``binary_cross_entropy`` is logistic regression; ``hinge`` is a
    linear support vector machine, for which ``targets_for`` turns {0, 1} into {-1, +1}
    (``train("breast-cancer", loss="hinge")``). Accuracy asks for the sign of the logit in both.
    Columns are standardised; rows split 60/20/20 by class.

    Source: UCI Breast Cancer Wisconsin (Diagnostic), from scikit-learn's wheel.

    >>> task = breast_cancer(0)
    >>> task.train[1].unique(), task.with_loss("hinge").train[1].unique()
    (tensor([0., 1.]), tensor([-1.,  1.]))
    """
    from sklearn.datasets import load_breast_cancer

    inputs, labels = (torch.as_tensor(array) for array in load_breast_cancer(return_X_y=True))
    split = split_rows(len(labels), seed, classes=labels, valid=0.2, test=0.2)
    standardise = Standardiser.of(inputs[split.train])
    with seeded(seed):
        model = nn.Linear(30, 1)
    train, valid, test = split.of(standardise(inputs), labels.float()[:, None])
    return Task(
        name="breast-cancer",
        model=model,
        loss="binary_cross_entropy",
        train=train,
        valid=valid,
        test=test,
        metrics=["accuracy"],
        optimizer="adam(lr=1e-2, l2=1e-2)",
        epochs=30,
        batch_size=32,
        targets_for=dict.fromkeys(("hinge", "squared_hinge", "perceptron"), signs),
        baseline=class_entropy(labels[split.train]),
    )


def signs(targets: Tensor) -> Tensor:
    """Turn targets in {0, 1} into {-1, +1}: ``2 y - 1``.

    >>> signs(torch.tensor([0.0, 1.0]))
    tensor([-1.,  1.])
    """
    return 2 * targets - 1
