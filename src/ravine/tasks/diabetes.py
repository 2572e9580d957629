"""`diabetes`: regression of the progression of a disease, in standardised units."""

from __future__ import annotations

import torch
from torch import nn

from ravine.tasks.metrics import InOriginalUnits
from ravine.tasks.preparation import Standardiser, split_rows
from ravine.tasks.seeding import seeded
from ravine.tasks.task import Task


def diabetes(seed: int) -> Task:
    """Predict the disease's progression after a year in 442 patients (10 measurements).

    A linear model, the right capacity for so few rows. Inputs and targets are standardised by the
    training part, and the loss (``mse``, or ``huber`` by choice) is in those units; the metrics
    are in the original units (a score from 25 to 346), ``squared_error`` in their square. Targets
    and outputs are (N, 1). Rows split 60/20/20.

    Source: Efron, Hastie, Johnstone, Tibshirani, "Least angle regression" (2004), from
    scikit-learn's wheel.

    >>> task = diabetes(0)
    >>> task.train[0].shape, list(task.metric_functions())
    (torch.Size([265, 10]), ['squared_error', 'absolute_error'])
    """
    from sklearn.datasets import load_diabetes

    inputs, targets = (
        torch.as_tensor(array) for array in load_diabetes(return_X_y=True, scaled=False)
    )
    split = split_rows(len(targets), seed, valid=0.2, test=0.2)
    standardise = Standardiser.of(inputs[split.train])
    standardise_target = Standardiser.of(targets[split.train])
    with seeded(seed):
        model = nn.Linear(10, 1)
    mean, scale = float(standardise_target.mean), float(standardise_target.scale)
    train, valid, test = split.of(standardise(inputs), standardise_target(targets)[:, None])
    return Task(
        name="diabetes",
        model=model,
        loss="mse",
        train=train,
        valid=valid,
        test=test,
        metrics=[
            InOriginalUnits("squared_error", mean=mean, scale=scale),
            InOriginalUnits("absolute_error", mean=mean, scale=scale),
        ],
        optimizer="adam(lr=1e-2)",
        epochs=30,
        batch_size=32,
        baseline=1.0,  # the variance of standardised targets
    )
