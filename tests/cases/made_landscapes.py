"""Made faults of the landscape: saddles, plateaus and poor stationary points."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from cases import data
from cases.case import case
from cases.measures import accuracy, explained, least_loss
from cases.models import mlp
from ravine import Task

CROSS_ENTROPY = nn.CrossEntropyLoss()


class Product(nn.Module):
    """A matrix as the product of two thin ones: the loss has a saddle where both are 0."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.left = nn.Parameter(start * torch.randn(12, 3))
        self.right = nn.Parameter(start * torch.randn(3, 12))

    def forward(self, rows: Tensor) -> Tensor:
        return self.left[rows] @ self.right


@case("saddle-factorisation", "saddle-point", margin=0.4, measure=explained("train"),
      also=("plateau", "symmetric-init", "bad-init", "vanishing-gradient", "lr-too-low"))  # fmt: skip
def factorisation(seed: int, mended: bool) -> Task:
    source = data.generator(seed)
    matrix = torch.randn(12, 3, generator=source) @ torch.randn(3, 12, generator=source)
    return Task(
        model=Product(0.5 if mended else 1e-7), loss="mse", train=(torch.arange(12), matrix),
        batch_size="all", epochs=100, optimizer=partial(SGD, lr=0.6),
    )  # fmt: skip


class Hyperbola(nn.Module):
    """x^2 - y^2 + y^4 / 4 with x far away and y at 0: gradient descent comes to rest at the saddle."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(1.0))
        self.y = nn.Parameter(torch.tensor(start))

    def forward(self, rows: Tensor) -> Tensor:
        return (self.x.square() - self.y.square() + self.y**4 / 4).expand(len(rows), 1)


def mean_output(output: Tensor, target: Tensor) -> Tensor:
    """The output itself, whatever the target."""
    return (output - target).mean()


@case("saddle-hyperbola", "saddle-point", margin=0.5, measure=least_loss,
      also=("plateau", "symmetric-init", "stationary-point"))  # fmt: skip
def hyperbola(seed: int, mended: bool) -> Task:
    return Task(
        model=Hyperbola(0.05 if mended else 0.0), loss=mean_output, batch_size="all", epochs=150,
        train=(torch.zeros(8, 1), torch.zeros(8, 1)), optimizer=partial(SGD, lr=0.1),
    )  # fmt: skip


@case("saddle-deep-linear", "saddle-point", "bad-init", "vanishing-gradient", margin=0.4,
      measure=explained("train"), also=("plateau", "symmetric-init", "missing-nonlinearity"),
      unsure="weights near 0 make the saddle: place and cause")  # fmt: skip
def deep_linear(seed: int, mended: bool) -> Task:
    model = mlp(9, 16, 16, 16, 1, activation=nn.Tanh)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.0 if mended else 0.02)
    return Task(
        model=model, loss="mse", batch_size=64, epochs=15, optimizer=partial(SGD, lr=0.1),
        **data.friedman(seed).parts(),
    )  # fmt: skip


@case("plateau-parity", "plateau", "saddle-point", "unlearnable-data", margin=0.2, measure=accuracy("train"),
      also=("underfitting", "lr-too-low", "too-few-epochs"))  # fmt: skip
def parity(seed: int, mended: bool) -> Task:
    """The parity of 8 bits: no single bit tells anything, the gradient points nowhere for long."""
    X = torch.randint(0, 2, (256, 8), generator=data.generator(seed)).float() * 2 - 1
    y = (X.prod(1) > 0).long()
    return Task(
        model=mlp(8, 128, 2) if mended else mlp(8, 16, 2, activation=nn.Tanh), loss=CROSS_ENTROPY,
        train=(X, y), batch_size=32, epochs=40,
        optimizer=partial(Adam, lr=0.01) if mended else partial(SGD, lr=0.02),
    )  # fmt: skip


@case("saturated-at-the-start", "saturated-units", "bad-init", "plateau", margin=0.3,
      also=("vanishing-gradient",), measure=explained("train"))  # fmt: skip
def flat_start(seed: int, mended: bool) -> Task:
    """All units begin in the flat part of their tanh."""
    model = mlp(1, 16, 1, activation=nn.Tanh)
    if not mended:
        with torch.no_grad():
            model[0].bias.copy_(torch.sign(torch.randn(16)) * 12)
    x = torch.linspace(-2, 2, 64)[:, None]
    return Task(
        model=model, loss="mse", train=(x, (2 * x).sin()), batch_size=8, epochs=80,
        optimizer=partial(SGD, lr=0.03, momentum=0.5),
    )  # fmt: skip


@case("dead-one-unit", "dead-units", "stationary-point", "bad-init", margin=0.3,
      measure=explained("train"), also=("plateau", "underfitting", "model-too-small"))  # fmt: skip
def one_unit(seed: int, mended: bool) -> Task:
    """One ReLU unit that is dead for all data: the gradient is 0, whatever the step."""
    x = torch.linspace(-1, 1, 64)[:, None]
    model = mlp(1, 16 if mended else 1, 1)
    if not mended:
        with torch.no_grad():
            model[0].weight.fill_(-1.0)
            model[0].bias.fill_(-1.5)
    return Task(
        model=model, loss="mse", train=(x, x.relu()), batch_size=16, epochs=40,
        optimizer=partial(SGD, lr=0.1),
    )  # fmt: skip


class Valley(nn.Module):
    """A double well, (w^2 - 1)^2 + w / 2: the run ends in the shallower of two minima."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start))

    def forward(self, rows: Tensor) -> Tensor:
        return ((self.w.square() - 1).square() + self.w / 2).expand(len(rows), 1)


@case(
    "stationary-shallow-well",
    "stationary-point",
    margin=0.5,
    measure=least_loss,
    also=("bad-init", "plateau"),
)
def shallow_well(seed: int, mended: bool) -> Task:
    return Task(
        model=Valley(-0.5 if mended else 1.4), loss=mean_output, batch_size="all", epochs=120,
        train=(torch.zeros(8, 1), torch.zeros(8, 1)), optimizer=partial(SGD, lr=0.05),
    )  # fmt: skip


class Bump(nn.Module):
    """A bell of width 1/2 whose centre begins where no data is: the loss is nearly flat there."""

    def __init__(self, centre: float) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.tensor(centre))

    def forward(self, x: Tensor) -> Tensor:
        return (-2 * (x - self.centre).square()).exp()


@case("plateau-far-bell", "plateau", "bad-init", "lr-too-low", margin=0.5, measure=explained("train"),
      also=("stationary-point", "saturated-units", "too-few-epochs"))  # fmt: skip
def far_bell(seed: int, mended: bool) -> Task:
    x = torch.linspace(-1, 1, 64)[:, None]
    return Task(
        model=Bump(0.8 if mended else 3.2), loss="mse", train=(x, (-2 * x.square()).exp()),
        batch_size=16, epochs=40, optimizer=partial(SGD, lr=0.1),
    )  # fmt: skip


@case("stationary-half-of-a-wedge", "stationary-point", "model-too-small", "underfitting", margin=0.3,
      measure=explained("train"), also=("plateau", "dead-units"))  # fmt: skip
def wedge(seed: int, mended: bool) -> Task:
    """One ReLU unit on |x| learns one side and rests there: the other side gives it no gradient."""
    x = torch.linspace(-1, 1, 64)[:, None]
    model = mlp(1, 16 if mended else 1, 1)
    if not mended:
        with torch.no_grad():
            model[0].weight.fill_(1.0)
            model[0].bias.fill_(0.0)
            model[2].weight.fill_(0.5)
    return Task(
        model=model, loss="mse", train=(x, x.abs()), batch_size="all", epochs=200,
        optimizer=partial(SGD, lr=0.3),
    )  # fmt: skip
