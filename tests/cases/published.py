"""Published bugs of small classifiers and regressors, rebuilt: questions on Stack Overflow."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from cases import data
from cases.case import case
from cases.measures import accuracy, explained
from cases.models import mlp
from ravine import Task

PROBABILITY = accuracy(threshold=0.5)
CORNERS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
XOR = torch.tensor([[0.0], [1.0], [1.0], [0.0]])


def clipped_bce(output: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy as Keras has it: the output is taken into (0, 1) by cutting."""
    return nn.functional.binary_cross_entropy(output.clamp(1e-7, 1 - 1e-7), target)


@case(
    "so-31556268-xor", "wrong-loss", "lr-too-low", "plateau", "too-few-epochs", "saddle-point",
    source="SO 31556268", measure=accuracy("train", threshold=0.5), margin=0.2,
    unsure="MAE and a slow optimizer hold it at the median together; it looks like a plateau",
)  # fmt: skip
def xor(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(2, 8 if mended else 4, 1, activation=nn.Sigmoid, head=nn.Sigmoid),
        loss=nn.MSELoss() if mended else nn.L1Loss(),
        optimizer=partial(Adam, lr=0.05) if mended else partial(SGD, lr=0.05),
        train=(CORNERS, XOR), batch_size="all", epochs=1000,
    )  # fmt: skip


@case(
    "so-48934338-parabola", "lr-too-high", source="SO 48934338", measure=explained("train"),
    also=("unscaled-targets", "dead-units", "exploding-gradient", "non-finite", "unscaled-inputs"),
    margin=0.3,
)  # fmt: skip
def parabola(seed: int, mended: bool) -> Task:
    x = torch.linspace(-2, 2, 50)[:, None]
    y = 5 * x.square() + torch.randn(50, 1, generator=data.generator(seed))
    return Task(
        model=mlp(1, 50, 30, 1), loss=nn.MSELoss(), train=(x, y),
        optimizer=partial(SGD, lr=0.001 if mended else 0.1), batch_size=10, epochs=100,
    )  # fmt: skip


@case(
    "so-33969059-linear-target", "wrong-output-activation", "unscaled-inputs", "unscaled-targets",
    source="SO 33969059", also=("saturated-units", "vanishing-gradient"), measure=explained(),
    margin=0.7,
)  # fmt: skip
def linear_target(seed: int, mended: bool) -> Task:
    X = 1e4 * torch.rand(300, 2, generator=data.generator(seed))
    y = (0.3 * X[:, :1] + 0.7 * X[:, 1:]) / (1e4 if mended else 1)
    parts = data.split(X, y, seed, scaled=mended)
    return Task(
        model=mlp(2, 3, 2, 1, activation=nn.Tanh, head=None if mended else partial(nn.Softmax, -1)),
        loss=nn.MSELoss(), optimizer=partial(SGD, lr=0.1), batch_size=32, epochs=20,
        **parts.parts(),
    )  # fmt: skip


@case(
    "so-50306988-two-clusters", "too-few-epochs", "lr-too-low",
    source="SO 50306988", also=("model-too-small", "underfitting"), margin=0.05,
)  # fmt: skip
def two_clusters(seed: int, mended: bool) -> Task:
    X = torch.rand(600, 2, generator=data.generator(seed))
    y = torch.arange(600) % 2
    X[y == 1] += torch.tensor([0.6, 0.4])
    parts = data.split(X, y, seed, scaled=False)
    return Task(
        model=mlp(2, 2, 2), loss=nn.CrossEntropyLoss(), batch_size=32,
        optimizer=partial(Adam, lr=0.05 if mended else 1e-3), epochs=20 if mended else 5,
        **parts.parts(),
    )  # fmt: skip


@case(
    "so-59278771-iris", "wrong-output-activation", "unscaled-inputs", "model-too-small",
    "lr-too-low", "too-few-epochs", source="SO 59278771", also=("saturated-units", "underfitting"),
    unsure="the answers named scaling, capacity and the head; each helps",
)  # fmt: skip
def iris(seed: int, mended: bool) -> Task:
    parts = data.loaded("iris", seed, scaled=mended)
    model = mlp(4, 16, 3) if mended else mlp(4, 4, 3, activation=nn.Sigmoid, head=nn.Sigmoid)
    return Task(
        model=model, loss=nn.CrossEntropyLoss(), optimizer=partial(Adam, lr=0.01 if mended else 1e-3),
        batch_size=16, epochs=30, **parts.parts(),
    )  # fmt: skip


@case(
    "so-45442843-softmax-of-one", "wrong-output-activation", source="SO 45442843",
    also=("wrong-loss",), measure=PROBABILITY, margin=0.2,
)  # fmt: skip
def softmax_of_one(seed: int, mended: bool) -> Task:
    x = torch.randn(300, 1, generator=data.generator(seed))
    parts = data.split(x, (x > 0.1).float(), seed)
    return Task(
        model=mlp(1, 1, 1, activation=nn.Tanh, head=nn.Sigmoid if mended else partial(nn.Softmax, -1)),
        loss=nn.BCELoss() if mended else nn.L1Loss(), optimizer=partial(Adam, lr=0.02),
        batch_size=16, epochs=15, **parts.parts(),
    )  # fmt: skip


@case(
    "so-48221692-squares", "wrong-output-activation", source="SO 48221692",
    also=("unscaled-targets", "saturated-units"), measure=explained("train"), margin=0.4,
)  # fmt: skip
def squares(seed: int, mended: bool) -> Task:
    x = torch.linspace(-2, 2, 100)[:, None]
    return Task(
        model=mlp(1, 5, 1, activation=nn.Tanh, head=None if mended else nn.Sigmoid),
        loss=nn.MSELoss(), optimizer=partial(SGD, lr=0.05), train=(x, x.square()), batch_size=10,
        epochs=80,
    )  # fmt: skip


@case(
    "so-39525358-unscaled", "unscaled-inputs", source="SO 39525358", measure=PROBABILITY,
    also=("saturated-units", "dead-units", "lr-too-high"),
)  # fmt: skip
def unscaled(seed: int, mended: bool) -> Task:
    X = torch.rand(400, 3, generator=data.generator(seed)) * torch.tensor([60.0, 9e4, 4.0])
    y = ((X[:, :1] / 60 + X[:, 1:2] / 9e4 - X[:, 2:] / 4) > 0.5).float()
    parts = data.split(X, y, seed, scaled=mended)
    return Task(
        model=mlp(3, 12, 3, 1, head=nn.Sigmoid), loss=nn.BCELoss(), optimizer=partial(Adam, lr=0.01),
        batch_size=16, epochs=20, **parts.parts(),
    )  # fmt: skip


@case(
    "so-44164749-few-steps", "too-few-epochs", "lr-too-low", source="SO 44164749",
    also=("underfitting",), margin=0.2,
)  # fmt: skip
def few_steps(seed: int, mended: bool) -> Task:
    parts = data.digits(seed)
    return Task(
        model=mlp(64, 600, 10), loss=nn.CrossEntropyLoss(), epochs=5,
        batch_size=64 if mended else 2000, optimizer=partial(SGD, lr=0.1 if mended else 0.01),
        **parts.parts(),
    )  # fmt: skip


@case(
    "so-57397440-cancer", "wrong-output-activation", source="SO 57397440", measure=PROBABILITY,
    margin=0.2,
)  # fmt: skip
def cancer(seed: int, mended: bool) -> Task:
    parts = data.binary(data.loaded("breast_cancer", seed))
    head = nn.Sigmoid() if mended else nn.Softmax(-1)
    return Task(
        model=nn.Sequential(
            nn.Linear(30, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8), nn.BatchNorm1d(8),
            nn.ReLU(), nn.Linear(8, 1), head,
        ),
        loss=nn.BCELoss(), optimizer=partial(Adam, lr=1e-2), batch_size=32, epochs=10,
        **parts.parts(),
    )  # fmt: skip


@case(
    "so-52566823-all-sigmoid", "wrong-output-activation", source="SO 52566823",
    also=("saturated-units", "unscaled-targets", "vanishing-gradient"), measure=explained(), margin=0.5,
)  # fmt: skip
def all_sigmoid(seed: int, mended: bool) -> Task:
    from sklearn.datasets import make_regression

    X, y = (torch.as_tensor(array).float() for array in make_regression(1000, 5, random_state=seed))
    parts = data.split(X, y[:, None] / (100 if mended else 1), seed)
    model = mlp(5, 4, 1) if mended else mlp(5, 4, 1, activation=nn.Sigmoid, head=nn.Sigmoid)
    return Task(
        model=model, loss=nn.MSELoss(), optimizer=partial(SGD, lr=0.05 if mended else 0.1),
        batch_size=32, epochs=15, **parts.parts(),
    )  # fmt: skip


@case(
    "so-61234347-oversize-iris", "too-few-epochs", source="SO 61234347", also=("lr-too-low",),
    margin=0.05, unsure="nine outputs for three classes and 700,000 weights were named too",
)  # fmt: skip
def oversize_iris(seed: int, mended: bool) -> Task:
    parts = data.loaded("iris", seed)
    widths = [4, 32, 3] if mended else [4, 1000, 500, 250, 125, 64, 32, 9]
    return Task(
        model=mlp(*widths, activation=nn.Tanh), loss=nn.CrossEntropyLoss(),
        optimizer=partial(Adam, lr=0.01 if mended else 1e-4), batch_size=32, epochs=30 if mended else 1,
        **parts.parts(),
    )  # fmt: skip


@case(
    "so-58572274-xnor", "wrong-output-activation", "dead-units", source="SO 58572274",
    also=("model-too-small", "plateau", "stationary-point", "wrong-loss"),
    measure=accuracy("train", threshold=0.5), margin=0.15,
)  # fmt: skip
def xnor(seed: int, mended: bool) -> Task:
    model = (
        mlp(2, 8, 1, activation=nn.Tanh, head=nn.Sigmoid)
        if mended
        else mlp(2, 2, 2, 1, head=nn.ReLU)
    )
    return Task(
        model=model, loss=clipped_bce, optimizer=partial(Adam, lr=0.05), train=(CORNERS, 1 - XOR),
        batch_size="all", epochs=300,
    )  # fmt: skip


@case(
    "so-64387251-frozen", "frozen-parameters", "wrong-output-activation", source="SO 64387251",
    also=("wrong-loss",), measure=accuracy(threshold=0.5), margin=0.05,
)  # fmt: skip
def frozen(seed: int, mended: bool) -> Task:
    parts = data.binary(data.moons(seed))
    model = mlp(2, 8, 1, activation=nn.Tanh, head=nn.Sigmoid if mended else None)
    model[0].requires_grad_(mended)
    return Task(
        model=model, loss=clipped_bce, optimizer=partial(Adam, lr=0.03), batch_size=32, epochs=40,
        **parts.parts(),
    )  # fmt: skip


def broadcast_cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of one-hot targets as Keras computes it: a single output is broadcast."""
    return -(target * output.log_softmax(-1)).sum(-1).mean()


@case(
    "so-66602662-one-output", "wrong-output-activation", "wrong-loss", source="SO 66602662",
    also=("model-too-small",), margin=0.3,
    unsure="the output's width is wrong, which has no name of its own",
)  # fmt: skip
def one_output(seed: int, mended: bool) -> Task:
    parts = data.blobs(seed, centers=5, std=0.6)
    parts = parts.mapped(y=lambda y: nn.functional.one_hot(y, 5).float())
    return Task(
        model=mlp(2, 32, 5 if mended else 1), loss=broadcast_cross_entropy,
        optimizer=partial(Adam, lr=0.01), batch_size=32, epochs=15, **parts.parts(),
    )  # fmt: skip
