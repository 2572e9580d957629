"""`wine`: softmax regression of three cultivars of wine."""

from __future__ import annotations

import torch
from torch import nn

from ravine.tasks.preparation import Standardiser, class_entropy, split_rows
from ravine.tasks.seeding import seeded
from ravine.tasks.task import Task


def wine(seed: int) -> Task:
    """Tell three cultivars apart in 178 wines (13 measurements) by softmax regression.

    Columns are standardised; rows split 60/20/20 by class.

    Source: UCI Wine, from scikit-learn's wheel.

    >>> wine(0)  # doctest: +ELLIPSIS
    Task('wine', loss='cross_entropy')  # Linear, 42 weights, train 107, ...
    """
    from sklearn.datasets import load_wine

    inputs, labels = (torch.as_tensor(array) for array in load_wine(return_X_y=True))
    labels = labels.long()
    split = split_rows(len(labels), seed, classes=labels, valid=0.2, test=0.2)
    standardise = Standardiser.of(inputs[split.train])
    with seeded(seed):
        model = nn.Linear(13, 3)
    train, valid, test = split.of(standardise(inputs), labels)
    return Task(
        name="wine",
        model=model,
        loss="cross_entropy",
        train=train,
        valid=valid,
        test=test,
        metrics=["accuracy"],
        optimizer="adam(lr=1e-2)",
        epochs=60,
        batch_size=16,
        baseline=class_entropy(labels[split.train]),
    )
