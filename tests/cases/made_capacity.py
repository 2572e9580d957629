"""Made faults of capacity: too much or too little model, regulariser or batch for the data."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW

from cases import data
from cases.case import case
from cases.measures import accuracy, explained
from cases.models import mlp, transformer
from ravine import Task

CROSS_ENTROPY = nn.CrossEntropyLoss()


@case(
    "overfitting-digits", "overfitting", margin=0.05, also=("too-few-epochs",), measure=accuracy()
)
def overfitting(seed: int, mended: bool) -> Task:
    """A wide net on 60 noisy images, long after it knows them; mended by more rows."""
    parts = data.digits(seed, None if mended else 60)
    return Task(
        model=mlp(64, 128, 128, 10), loss=CROSS_ENTROPY, batch_size=32, epochs=4 if mended else 60,
        optimizer=partial(Adam, lr=2e-3), **parts.parts(),
    )  # fmt: skip


@case("overfitting-regression", "overfitting", margin=0.2, measure=explained())
def overfitting_regression(seed: int, mended: bool) -> Task:
    parts = data.loaded("diabetes", seed)
    return Task(
        model=nn.Linear(10, 1) if mended else mlp(10, 128, 128, 1), loss="mse", batch_size=32,
        epochs=20 if mended else 80, optimizer=partial(Adam, lr=5e-3 if mended else 3e-3),
        **parts.parts(),
    )  # fmt: skip


@case("overfitting-transformer", "overfitting", margin=0.1, measure=lambda p: -p.valid_losses[-1])
def overfitting_transformer(seed: int, mended: bool) -> Task:
    parts, symbols = data.text(seed, 400 if mended else 60)
    return Task(
        model=transformer(symbols, width=48), loss="cross_entropy", batch_size=16,
        epochs=5 if mended else 60, optimizer="adamw(lr=3e-3)", **parts.parts(),
    )  # fmt: skip


@case("over-regularised-decay", "over-regularised", margin=0.2, also=("underfitting", "plateau"))
def over_regularised(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(64, 64, 10), loss=CROSS_ENTROPY, batch_size=64, epochs=10,
        optimizer=partial(AdamW, lr=3e-3, weight_decay=0.01 if mended else 100.0),
        **data.digits(seed).parts(),
    )  # fmt: skip


@case("over-regularised-dropout", "over-regularised", "dropout-misplaced", margin=0.1,
      also=("underfitting",))  # fmt: skip
def over_dropout(seed: int, mended: bool) -> Task:
    p = 0.1 if mended else 0.95
    model = nn.Sequential(
        nn.Linear(64, 32), nn.ReLU(), nn.Dropout(p), nn.Linear(32, 32), nn.ReLU(), nn.Dropout(p),
        nn.Linear(32, 10),
    )  # fmt: skip
    return Task(
        model=model, loss=CROSS_ENTROPY, optimizer=partial(Adam, lr=2e-3), batch_size=64, epochs=10,
        **data.digits(seed).parts(),
    )  # fmt: skip


@case("over-regularised-l2", "over-regularised", margin=0.3, measure=explained("train"),
      also=("underfitting", "plateau"))  # fmt: skip
def over_l2(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(9, 32, 1), loss="mse", batch_size=32, epochs=15,
        optimizer=f"sgd(lr=0.05, momentum=0.9, l2={0.0001 if mended else 1.0})",
        **data.friedman(seed).parts(),
    )  # fmt: skip


@case("model-too-small-circles", "model-too-small", "underfitting", margin=0.1,
      also=("missing-nonlinearity", "plateau"))  # fmt: skip
def too_small(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(2, 24 if mended else 1, 2), loss=CROSS_ENTROPY, batch_size=32, epochs=30,
        optimizer=partial(Adam, lr=0.02), **data.circles(seed).parts(),
    )  # fmt: skip


@case("model-too-small-digits", "model-too-small", "underfitting", margin=0.1, also=("dead-units",))
def too_narrow(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(64, 48 if mended else 2, 10), loss=CROSS_ENTROPY, batch_size=64, epochs=25,
        optimizer=partial(Adam, lr=5e-3), **data.digits(seed).parts(),
    )  # fmt: skip


@case(
    "underfitting-linear-moons",
    "underfitting",
    "model-too-small",
    "missing-nonlinearity",
    margin=0.05,
)
def linear_moons(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(2, 24, 2) if mended else nn.Linear(2, 2), loss=CROSS_ENTROPY, batch_size=32, epochs=30,
        optimizer=partial(Adam, lr=0.02), **data.moons(seed, noise=0.1).parts(),
    )  # fmt: skip


@case("missing-nonlinearity-mlp", "missing-nonlinearity", margin=0.2,
      also=("underfitting", "model-too-small"))  # fmt: skip
def no_activation(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(2, 32, 32, 2, activation=nn.ReLU if mended else nn.Identity), loss=CROSS_ENTROPY,
        optimizer=partial(Adam, lr=0.01), batch_size=32, epochs=20, **data.circles(seed).parts(),
    )  # fmt: skip


@case("missing-nonlinearity-regression", "missing-nonlinearity", margin=0.1, measure=explained(),
      also=("underfitting", "model-too-small"))  # fmt: skip
def linear_stack(seed: int, mended: bool) -> Task:
    layers = [nn.Linear(9, 32), nn.Linear(32, 32), nn.Linear(32, 1)]
    if mended:
        layers[1:1] = [nn.ReLU()]
    return Task(
        model=nn.Sequential(*layers), loss=nn.SmoothL1Loss(), optimizer=partial(Adam, lr=3e-3),
        batch_size=32, epochs=40, **data.friedman(seed, noise=0.3).parts(),
    )  # fmt: skip


@case(
    "batch-of-one",
    "batch-too-small",
    "noise-floor",
    "lr-too-high",
    margin=0.04,
    measure=explained("train"),
)
def batch_of_one(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(10, 16, 1, activation=nn.Tanh), loss="mse", batch_size=32 if mended else 1,
        epochs=20 if mended else 4, optimizer=partial(SGD, lr=0.1), **data.loaded("diabetes", seed).parts(),
    )  # fmt: skip


@case(
    "batch-of-two-with-norm",
    "batch-too-small",
    "noise-floor",
    margin=0.05,
    also=("train-valid-mismatch",),
)
def batch_norm_of_two(seed: int, mended: bool) -> Task:
    model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))
    return Task(
        model=model, loss=CROSS_ENTROPY, batch_size=32 if mended else 2, epochs=8 if mended else 2,
        optimizer=partial(Adam, lr=0.01), **data.digits(seed, 600).parts(),
    )  # fmt: skip


@case(
    "noise-floor",
    "noise-floor",
    "lr-too-high",
    "batch-too-small",
    margin=0.05,
    measure=explained("train"),
)
def noise_floor(seed: int, mended: bool) -> Task:
    """A constant rate that bounces above the minimum of a linear regression with heavy noise."""
    X = torch.randn(400, 20, generator=data.generator(seed))
    y = X[:, :4].sum(1, keepdim=True) + torch.randn(400, 1, generator=data.generator(seed + 1))
    return Task(
        model=nn.Linear(20, 1), loss="mse", train=(X, y), batch_size=4, epochs=15,
        optimizer="sgd(lr=cosine(1500, peak=0.06))" if mended else "sgd(lr=0.06)",
    )  # fmt: skip
