"""`digits`: a multi-layer perceptron on 8 x 8 images of handwritten digits."""

from __future__ import annotations

import torch
from torch import nn

from ravine.tasks.preparation import Standardiser, class_entropy, split_rows
from ravine.tasks.seeding import seeded
from ravine.tasks.task import Task


def digits(seed: int) -> Task:
    """Classify 1,797 handwritten digits (64 pixels, 10 classes) by an MLP 64-256-128-10.

    Pixels are standardised together, since they share one unit; rows split 70/15/15 by class.
    The dropout layers pass everything through until ``dropout(p)`` is asked for.

    Source: UCI Optical Recognition of Handwritten Digits, from scikit-learn's wheel.

    >>> digits(0)  # doctest: +ELLIPSIS
    Task('digits', loss='cross_entropy')  # Sequential, 50826 weights, train 1258, ...
    """
    from sklearn.datasets import load_digits

    pixels, labels = (torch.as_tensor(array) for array in load_digits(return_X_y=True))
    labels = labels.long()
    split = split_rows(len(labels), seed, classes=labels)
    standardise = Standardiser.of(pixels[split.train], per_column=False)
    with seeded(seed):
        model = nn.Sequential(
            nn.Linear(64, 256),
            nn.ReLU(),
            nn.Dropout(0.0),
            nn.Linear(256, 128),
            nn.ReLU(),
            nn.Dropout(0.0),
            nn.Linear(128, 10),
        )
    train, valid, test = split.of(standardise(pixels), labels)
    return Task(
        name="digits",
        model=model,
        loss="cross_entropy",
        train=train,
        valid=valid,
        test=test,
        metrics=["accuracy"],
        optimizer="adam(lr=cosine(800, peak=2e-3, end=4e-5))",
        epochs=40,
        batch_size=64,
        regularize=["dropout(0.4)"],
        baseline=class_entropy(labels[split.train]),
    )
