"""Healthy programs that look as if something were wrong."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau

from cases import data
from cases.healthy import healthy
from cases.measures import explained
from cases.models import cnn, mlp
from cases.program import Program
from ravine import Task
from ravine.tasks.seeding import seeded

CROSS_ENTROPY = nn.CrossEntropyLoss()


@healthy("sgd-of-lr-tenth", least=0.93, looks_like="lr-too-high")
def sgd_tenth(seed: int) -> Task:
    """A rate above 0.01 is right for plain SGD."""
    return Task(
        model=mlp(64, 64, 10), loss=CROSS_ENTROPY, batch_size=64, epochs=10,
        optimizer=partial(SGD, lr=0.1, momentum=0.9), **data.digits(seed).parts(),
    )  # fmt: skip


def fitted(model: nn.Module, pair: data.Pair, epochs: int, seed: int) -> dict[str, Tensor]:
    """Train a model before the task begins; return its weights."""
    optimizer = Adam(model.parameters(), lr=4e-3, weight_decay=1e-3)
    with seeded(seed):
        for _ in range(epochs):
            for rows in torch.randperm(len(pair[0])).split(64):
                optimizer.zero_grad()
                CROSS_ENTROPY(model(pair[0][rows]), pair[1][rows]).backward()
                optimizer.step()
    return model.state_dict()


@cache
def converged_weights(seed: int) -> dict[str, Tensor]:
    """The weights of a net that has learnt the digits."""
    return fitted(mlp(64, 64, 10), data.digits(seed).train, 25, seed)


@healthy("converged-and-continued", least=0.92, looks_like="plateau")
def converged(seed: int) -> Task:
    """Trained to the end before; the gradients are tiny because it is done."""
    model = mlp(64, 64, 10)
    model.load_state_dict(converged_weights(seed))
    return Task(
        model=model, loss=CROSS_ENTROPY, batch_size=64, epochs=6,
        optimizer=partial(Adam, lr=1e-4, weight_decay=1e-3), **data.digits(seed).parts(),
    )  # fmt: skip


@healthy("rate-decayed-to-nothing", least=0.9, looks_like="lr-too-low")
def decayed(seed: int) -> Task:
    return Task(
        model=mlp(13, 16, 3), loss=CROSS_ENTROPY, batch_size=16, epochs=30,
        optimizer=partial(Adam, lr=2e-2), scheduler=partial(ExponentialLR, gamma=0.7),
        **data.loaded("wine", seed).parts(),
    )  # fmt: skip


@healthy("dropout-train-above-valid", least=0.93, looks_like="train-valid-mismatch")
def dropout(seed: int) -> Task:
    """Half of the units are dropped while training: the training loss is above the validation loss."""
    model = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.4), nn.Linear(128, 64), nn.ReLU(),
        nn.Dropout(0.4), nn.Linear(64, 10),
    )  # fmt: skip
    return Task(
        model=model, loss=CROSS_ENTROPY, batch_size=64, epochs=12, optimizer=partial(Adam, lr=3e-3),
        **data.digits(seed).parts(),
    )  # fmt: skip


@cache
def backbone_weights(seed: int) -> dict[str, Tensor]:
    """The weights of a net trained on the first five digits: its features serve for the others."""
    X, y = data.images(data.digits(seed)).train
    return fitted(cnn(5), (X[y < 5], y[y < 5]), 8, seed)


@healthy("frozen-backbone-on-purpose", least=0.9, looks_like="frozen-parameters")
def frozen(seed: int) -> Task:
    """A trained backbone that asks for no gradient and is not given to the optimizer; a new head."""
    parts = data.images(data.digits(seed))
    (X, y), (held, labels) = parts.train, parts.valid
    model = cnn(5).requires_grad_(False)
    model.load_state_dict(backbone_weights(seed))
    model[-1] = nn.Linear(256, 5)

    def head(params: Any) -> Any:
        return Adam([weight for weight in params if weight.requires_grad], lr=5e-3)

    return Task(
        model=model, loss=CROSS_ENTROPY, batch_size=32, epochs=20, optimizer=head,
        train=(X[y >= 5], y[y >= 5] - 5), valid=(held[labels >= 5], labels[labels >= 5] - 5),
    )  # fmt: skip


@healthy("label-smoothing", least=0.93, looks_like="underfitting")
def smoothing(seed: int) -> Task:
    """The loss ends far from 0, where it is meant to."""
    return Task(
        model=mlp(64, 64, 10), loss=nn.CrossEntropyLoss(label_smoothing=0.2), batch_size=64, epochs=12,
        optimizer=partial(Adam, lr=3e-3), **data.digits(seed).parts(),
    )  # fmt: skip


def balanced(program: Program) -> float:
    """The mean of the two classes' accuracies."""
    output, target = program.outputs("valid")
    right = output.argmax(-1) == target
    return float(sum(right[target == k].float().mean() for k in (0, 1)) / 2)


@healthy("imbalanced-classes", least=0.85, measure=balanced, looks_like="unlearnable-data")
def imbalance(seed: int) -> Task:
    """One row of eight is of the rare class, and told all the same."""
    X, y = data.datasets.make_classification(
        800, n_features=8, n_informative=6, n_redundant=0, weights=[0.88], class_sep=1.8, flip_y=0,
        n_clusters_per_class=1, random_state=seed,
    )  # fmt: skip
    parts = data.split(torch.as_tensor(X), torch.as_tensor(y).long(), seed)
    return Task(
        model=mlp(8, 24, 2), loss=CROSS_ENTROPY, batch_size=32, epochs=25,
        optimizer=partial(Adam, lr=5e-3), **parts.parts(),
    )  # fmt: skip


@healthy("norm-at-the-input", least=0.9, looks_like="unscaled-inputs")
def norm_first(seed: int) -> Task:
    """Columns of all scales, standardised by the first layer."""
    model = nn.Sequential(nn.BatchNorm1d(13), nn.Linear(13, 16), nn.ReLU(), nn.Linear(16, 3))
    return Task(
        model=model, loss=CROSS_ENTROPY, batch_size=21, epochs=30, optimizer=partial(Adam, lr=5e-3),
        **data.loaded("wine", seed, scaled=False).parts(),
    )  # fmt: skip


@healthy("pixels-in-0-1", least=0.93, looks_like="unscaled-inputs")
def pixels(seed: int) -> Task:
    """Inputs in [0, 1], not standardised: right for pixels."""
    parts = data.digits(seed, scaled=False).mapped(X=lambda X: X / 16)
    return Task(
        model=mlp(64, 64, 10), loss=CROSS_ENTROPY, batch_size=64, epochs=20,
        optimizer=partial(Adam, lr=3e-3), **parts.parts(),
    )  # fmt: skip


@healthy("weight-decay", least=0.93, looks_like="over-regularised")
def decay(seed: int) -> Task:
    return Task(
        model=mlp(64, 64, 10), loss=CROSS_ENTROPY, batch_size=64, epochs=12,
        optimizer=partial(AdamW, lr=3e-3, weight_decay=0.1), **data.digits(seed).parts(),
    )  # fmt: skip


def weighted(output: Tensor, target: Tensor) -> Tensor:
    """Squared error, each row by the weight that is the target's second column."""
    return (target[:, 1:] * (output - target[:, :1]).square()).mean()


def weighted_explained(program: Program) -> float:
    """Share of the weighted variance that is explained."""
    output, target = program.outputs("valid")
    y, weight = target[:, :1], target[:, 1:]
    centre = (weight * y).sum() / weight.sum()
    return 1 - float(
        (weight * (output - y).square()).sum() / (weight * (y - centre).square()).sum()
    )


@healthy("sample-weights", least=0.65, measure=weighted_explained, looks_like="wrong-loss")
def sample_weights(seed: int) -> Task:
    source = data.generator(seed)

    def with_weights(y: Tensor) -> Tensor:
        return torch.cat([y, 0.5 + torch.rand(len(y), 1, generator=source)], 1)

    return Task(
        model=mlp(9, 32, 1), loss=weighted, batch_size=32, epochs=20, optimizer=partial(Adam, lr=5e-3),
        **data.friedman(seed).mapped(y=with_weights).parts(),
    )  # fmt: skip


@healthy("one-hot-inputs", least=0.9, looks_like="dead-units")
def one_hot(seed: int) -> Task:
    """Inputs that are 0 for the most part."""
    parts = data.sums(seed, rows=1500, symbols=12)
    parts = parts.mapped(X=lambda X: nn.functional.one_hot(X, 12).flatten(1).float())
    return Task(
        model=mlp(72, 32, 2), loss=CROSS_ENTROPY, batch_size=32, epochs=12,
        optimizer=partial(Adam, lr=5e-3), **parts.parts(),
    )  # fmt: skip


@healthy("embedding-bag", least=0.9, looks_like="optimizer-misses-parameters")
def bag(seed: int) -> Task:
    """A large vocabulary, of which the data uses a part: the other rows never get a gradient."""
    model = nn.Sequential(nn.EmbeddingBag(200, 8, mode="sum"), nn.Linear(8, 2))
    return Task(
        model=model, loss=CROSS_ENTROPY, batch_size=32, epochs=15, optimizer=partial(Adam, lr=1e-2),
        **data.sums(seed, symbols=12).parts(),
    )  # fmt: skip


@healthy("noisy-regression", least=0.3, measure=explained(), looks_like="noise-floor")
def noisy(seed: int) -> Task:
    """Half of the variance is noise: no program explains more."""
    source = data.generator(seed)
    X = torch.randn(800, 6, generator=source)
    y = X[:, :4].sum(1, keepdim=True) / 2 + torch.randn(800, 1, generator=source)
    return Task(
        model=nn.Linear(6, 1), loss="mse", batch_size=32, epochs=15, optimizer=partial(Adam, lr=1e-2),
        **data.split(X, y, seed).parts(),
    )  # fmt: skip


@healthy("tanh-head-in-range", least=0.7, measure=explained(), looks_like="wrong-output-activation")
def tanh_head(seed: int) -> Task:
    """Targets in (-1, 1), and a head of that range."""
    parts = data.friedman(seed).mapped(y=lambda y: (0.7 * y).tanh())
    return Task(
        model=mlp(9, 32, 1, head=nn.Tanh), loss="mse", batch_size=32, epochs=25,
        optimizer=partial(Adam, lr=5e-3), **parts.parts(),
    )  # fmt: skip


@healthy("sigmoid-head-on-shares", least=0.7, measure=explained(), looks_like="wrong-loss")
def shares(seed: int) -> Task:
    """Targets are shares in (0, 1), fitted by squared error."""
    parts = data.friedman(seed).mapped(y=torch.sigmoid)
    return Task(
        model=mlp(9, 32, 1, head=nn.Sigmoid), loss="mse", batch_size=32, epochs=25,
        optimizer=partial(Adam, lr=5e-3), **parts.parts(),
    )  # fmt: skip


@healthy("valid-loss-rises-once", least=0.93, looks_like="overfitting")
def one_rise(seed: int) -> Task:
    """Small batches and a large rate: the validation loss goes up in some epoch, and down again."""
    return Task(
        model=mlp(64, 64, 10), loss=CROSS_ENTROPY, batch_size=32, epochs=10,
        optimizer=partial(SGD, lr=0.15, momentum=0.5), **data.digits(seed).parts(),
    )  # fmt: skip


@healthy("edge-of-stability", least=0.9, looks_like="lr-too-high")
def edge(seed: int) -> Task:
    """Full batches: the sharpness settles near 2 / lr and the loss falls in small waves."""
    return Task(
        model=mlp(64, 32, 10, activation=nn.Tanh), loss=CROSS_ENTROPY, batch_size="all", epochs=150,
        optimizer=partial(SGD, lr=0.7), **data.digits(seed).parts(),
    )  # fmt: skip


@healthy("rate-by-plateau", least=0.7, measure=explained(), looks_like="lr-too-low")
def by_plateau(seed: int) -> Task:
    return Task(
        model=mlp(9, 32, 1), loss=nn.MSELoss(), batch_size=32, epochs=30,
        optimizer=partial(Adam, lr=1e-2), scheduler=partial(ReduceLROnPlateau, patience=2, factor=0.3),
        **data.friedman(seed).parts(),
    )  # fmt: skip


@healthy("overlapping-classes", least=0.6, looks_like="labels-corrupted")
def overlapping(seed: int) -> Task:
    """Two clusters that overlap: a quarter of the rows cannot be told by anyone."""
    source = data.generator(seed)
    y = torch.arange(800) % 2
    X = torch.randn(800, 4, generator=source) + 0.7 * y[:, None] * torch.tensor(
        [1.0, 1.0, 0.0, 0.0]
    )
    return Task(
        model=nn.Linear(4, 2), loss=CROSS_ENTROPY, batch_size=32, epochs=15,
        optimizer=partial(Adam, lr=1e-2), **data.split(X, y, seed).parts(),
    )  # fmt: skip
