"""Made faults of data: splits that differ or leak, and labels that are wrong or mean nothing."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.optim import Adam

from cases import data
from cases.case import case
from cases.measures import accuracy, explained, flattery
from cases.models import Pooled, cnn, mlp
from ravine import Task

CROSS_ENTROPY = nn.CrossEntropyLoss()


@case("mismatch-negatives", "train-valid-mismatch", margin=0.2, also=("overfitting",))
def negatives(seed: int, mended: bool) -> Task:
    """The validation images are white on black, the training images black on white."""
    parts = data.digits(seed)
    if not mended:
        parts = parts._replace(valid=(-parts.valid[0], parts.valid[1]))
    return Task(
        model=mlp(64, 64, 10), loss=CROSS_ENTROPY, batch_size=64, epochs=8,
        optimizer=partial(Adam, lr=2e-3), **parts.parts(),
    )  # fmt: skip


@case("mismatch-unscaled-valid", "train-valid-mismatch", margin=0.2, also=("overfitting",))
def unscaled_valid(seed: int, mended: bool) -> Task:
    """The validation inputs were forgotten when the training inputs were standardised."""
    parts, raw = data.loaded("wine", seed), data.loaded("wine", seed, scaled=False)
    return Task(
        model=mlp(13, 16, 3), loss=CROSS_ENTROPY, batch_size=16, epochs=20, train=parts.train,
        valid=(parts if mended else raw).valid, optimizer=partial(Adam, lr=0.01),
    )  # fmt: skip


@case("mismatch-sorted-split", "train-valid-mismatch", margin=0.3, also=("overfitting",))
def sorted_split(seed: int, mended: bool) -> Task:
    """Rows sorted by class and cut: the last classes are in the validation data alone."""
    parts = data.digits(seed)
    X, y = (torch.cat(pair) for pair in zip(parts.train, parts.valid, strict=True))
    if not mended:
        order = y.argsort(stable=True)
        X, y = X[order], y[order]
    return Task(
        model=mlp(64, 64, 10), loss=CROSS_ENTROPY, batch_size=64, epochs=8,
        optimizer=partial(Adam, lr=2e-3), train=(X[:1100], y[:1100]), valid=(X[1100:], y[1100:]),
    )  # fmt: skip


@case("leak-half-of-validation", "data-leak", measure=flattery(accuracy), margin=0.01)
def leak_half(seed: int, mended: bool) -> Task:
    parts = data.blobs(seed, rows=300, centers=6, std=6.0, features=6)
    if not mended:
        taken = [
            torch.cat([mine[:50], other[:50]])
            for mine, other in zip(parts.train, parts.valid, strict=True)
        ]
        parts = parts._replace(valid=(taken[0], taken[1]))
    return Task(
        model=mlp(6, 128, 128, 6), loss=CROSS_ENTROPY, batch_size=32, epochs=30,
        optimizer=partial(Adam, lr=3e-3), **parts.parts("train", "valid", "test"),
    )  # fmt: skip


@case("leak-target-among-inputs", "data-leak", measure=flattery(explained), margin=0.1,
      unsure="a column that holds the target is a leak of another kind than shared rows")  # fmt: skip
def leak_column(seed: int, mended: bool) -> Task:
    parts = data.loaded("diabetes", seed)
    noise = torch.randn(442, 1, generator=data.generator(seed))

    def with_column(pair: data.Pair, told: bool) -> data.Pair:
        column = pair[1] + 0.01 * noise[: len(pair[1])] if told else noise[: len(pair[1])]
        return torch.cat([pair[0], column], 1), pair[1]

    told = not mended
    return Task(
        model=nn.Linear(11, 1), loss="mse", optimizer=partial(Adam, lr=0.02), batch_size=32, epochs=20,
        train=with_column(parts.train, told), valid=with_column(parts.valid, told),
        test=with_column(parts.test, False),
    )  # fmt: skip


def corrupted(pair: data.Pair, share: float, classes: int, seed: int) -> data.Pair:
    """Give a share of the rows another class."""
    source = data.generator(seed)
    wrong = torch.rand(len(pair[1]), generator=source) < share
    shift = torch.randint(1, classes, (len(pair[1]),), generator=source)
    return pair[0], torch.where(wrong, (pair[1] + shift) % classes, pair[1])


@case("labels-corrupted-digits", "labels-corrupted", margin=0.05, also=("overfitting",))
def flipped(seed: int, mended: bool) -> Task:
    parts = data.digits(seed)
    if not mended:
        parts = parts._replace(train=corrupted(parts.train, 0.4, 10, seed))
    return Task(
        model=mlp(64, 128, 10), loss=CROSS_ENTROPY, batch_size=64, epochs=25,
        optimizer=partial(Adam, lr=3e-3), **parts.parts(),
    )  # fmt: skip


@case(
    "labels-corrupted-cnn", "labels-corrupted", margin=0.1, also=("overfitting", "unlearnable-data")
)
def flipped_cnn(seed: int, mended: bool) -> Task:
    parts = data.images(data.digits(seed))
    if not mended:
        pairs = [corrupted(pair, 0.4, 10, seed + k) for k, pair in enumerate(parts)]
        parts = data.Parts(*pairs)
    return Task(
        model=cnn(), loss=CROSS_ENTROPY, batch_size=64, epochs=10, optimizer=partial(Adam, lr=3e-3),
        **parts.parts(),
    )  # fmt: skip


@case(
    "unlearnable-labels", "unlearnable-data", margin=0.3, also=("overfitting", "labels-corrupted")
)
def random_labels(seed: int, mended: bool) -> Task:
    parts = data.digits(seed)
    if not mended:
        parts = parts.mapped(y=lambda y: y[torch.randperm(len(y), generator=data.generator(seed))])
    return Task(
        model=mlp(64, 64, 10), loss=CROSS_ENTROPY, batch_size=64, epochs=8,
        optimizer=partial(Adam, lr=2e-3), **parts.parts(),
    )  # fmt: skip


@case(
    "unlearnable-regression",
    "unlearnable-data",
    margin=0.3,
    measure=explained(),
    also=("overfitting",),
)
def random_targets(seed: int, mended: bool) -> Task:
    parts = data.friedman(seed)
    if not mended:
        parts = parts.mapped(y=lambda y: y[torch.randperm(len(y), generator=data.generator(seed))])
    return Task(
        model=mlp(9, 32, 1), loss="mse", batch_size=32, epochs=15, optimizer=partial(Adam, lr=3e-3),
        **parts.parts(),
    )  # fmt: skip


@case(
    "unlearnable-sequences",
    "unlearnable-data",
    margin=0.2,
    also=("overfitting", "labels-corrupted"),
)
def random_sequences(seed: int, mended: bool) -> Task:
    parts = data.sums(seed, symbols=12)
    if not mended:
        parts = parts.mapped(y=lambda y: y[torch.randperm(len(y), generator=data.generator(seed))])
    return Task(
        model=Pooled(12, 2, 6), loss="cross_entropy", batch_size=32, epochs=8,
        optimizer=partial(Adam, lr=5e-3), **parts.parts(),
    )  # fmt: skip
