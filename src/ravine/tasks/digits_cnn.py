"""`digits-cnn`: a small convolutional network on 8 x 8 images of handwritten digits."""

from __future__ import annotations

import torch
from torch import nn

from ravine.tasks.preparation import Standardiser, class_entropy, split_rows
from ravine.tasks.seeding import seeded
from ravine.tasks.task import Task


def digits_cnn(seed: int) -> Task:
    """Classify 1,797 handwritten digits (1 x 8 x 8, 10 classes) by two normalised convolutions.

    Data and split are those of ``digits`` for the same seed, so that the two compare.

    Source: UCI Optical Recognition of Handwritten Digits, from scikit-learn's wheel.

    >>> digits_cnn(0).train[0].shape
    torch.Size([1258, 1, 8, 8])
    """
    from sklearn.datasets import load_digits

    pixels, labels = (torch.as_tensor(array) for array in load_digits(return_X_y=True))
    labels = labels.long()
    split = split_rows(len(labels), seed, classes=labels)
    standardise = Standardiser.of(pixels[split.train], per_column=False)
    with seeded(seed):
        model = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.0),
            nn.Linear(1024, 64),
            nn.ReLU(),
            nn.Dropout(0.0),
            nn.Linear(64, 10),
        )
    train, valid, test = split.of(standardise(pixels).view(-1, 1, 8, 8), labels)
    return Task(
        name="digits-cnn",
        model=model,
        loss="cross_entropy",
        train=train,
        valid=valid,
        test=test,
        metrics=["accuracy"],
        optimizer="adam(lr=cosine(500, peak=2e-3, end=4e-5))",
        epochs=25,
        batch_size=64,
        regularize=["dropout(0.5)"],
        baseline=class_entropy(labels[split.train]),
    )
