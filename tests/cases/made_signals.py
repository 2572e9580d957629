"""Made faults of signals: gradients and activations that vanish, explode, die or saturate."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, RMSprop

from cases import data
from cases.case import case
from cases.measures import accuracy, explained
from cases.models import Recurrent, cnn, mlp
from ravine import Task

SIGMOIDS = [64, *[32] * 8, 10]


@case("vanishing-mlp", "vanishing-gradient", margin=0.5, also=("plateau", "saturated-units"))
def vanishing(seed: int, mended: bool) -> Task:
    model = mlp(*SIGMOIDS, activation=nn.ReLU if mended else nn.Sigmoid)
    return Task(
        model=scaled(model, 2.4) if mended else model, batch_size=64, epochs=8,
        loss=nn.CrossEntropyLoss(), optimizer=partial(SGD, lr=0.05),
        **data.digits(seed).parts(),
    )  # fmt: skip


@case("vanishing-tabular", "vanishing-gradient", margin=0.3, measure=explained(), also=("plateau",))
def vanishing_tabular(seed: int, mended: bool) -> Task:
    widths = [9, *[24] * 10, 1]
    return Task(
        model=mlp(*widths, activation=nn.ELU if mended else nn.Sigmoid), loss="mse", batch_size=32,
        optimizer=partial(Adam, lr=2e-3), epochs=12, **data.friedman(seed).parts(),
    )  # fmt: skip


@case("vanishing-rnn", "vanishing-gradient", margin=0.15, also=("plateau", "underfitting"))
def vanishing_rnn(seed: int, mended: bool) -> Task:
    model = Recurrent(6, 2, 16, "RNN", nonlinearity="relu")
    with torch.no_grad():
        model.recurrent.weight_hh_l0.copy_((1.0 if mended else 0.3) * torch.eye(16))
    return Task(
        model=model, loss="cross_entropy", batch_size=32, optimizer=partial(Adam, lr=5e-3), epochs=10,
        **data.recall(seed, length=12).parts(),
    )  # fmt: skip


def scaled(model: nn.Module, factor: float) -> nn.Module:
    """Multiply the weights of a model, not its biases."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(factor)
    return model


@case(
    "exploding-deep-net", "exploding-gradient", "bad-init", margin=0.5,
    also=("non-finite", "lr-too-high", "dead-units", "noise-floor"),
)  # fmt: skip
def exploding(seed: int, mended: bool) -> Task:
    model = mlp(*[64, *[48] * 9, 10])
    return Task(
        model=scaled(model, 2.4 if mended else 8.0), loss=nn.CrossEntropyLoss(), batch_size=64, epochs=10,
        optimizer=partial(SGD, lr=0.02), **data.digits(seed).parts(),
    )  # fmt: skip


@case(
    "exploding-rnn", "exploding-gradient", "bad-init", margin=0.1,
    also=("saturated-units", "non-finite", "lr-too-high"),
)  # fmt: skip
def exploding_rnn(seed: int, mended: bool) -> Task:
    model = Recurrent(10, 2, 16, "RNN", nonlinearity="relu")
    with torch.no_grad():
        model.recurrent.weight_hh_l0.copy_((0.9 if mended else 2.0) * torch.eye(16))
    return Task(
        model=model, loss="cross_entropy", batch_size=32, optimizer=partial(SGD, lr=0.05), epochs=15,
        **data.sums(seed, length=8, symbols=10).parts(),
    )  # fmt: skip


class LogOf(nn.Module):
    """The logarithm of what is 0 for many inputs; mended, of 1 more."""

    def __init__(self, more: float) -> None:
        super().__init__()
        self.more = more

    def forward(self, x: Tensor) -> Tensor:
        return (x.relu() + self.more).log()


@case("non-finite-log", "non-finite", margin=0.4)
def log_of_zero(seed: int, mended: bool) -> Task:
    model = nn.Sequential(
        nn.Linear(64, 32),
        nn.ReLU(),
        nn.Linear(32, 32),
        LogOf(1.0 if mended else 0.0),
        nn.Linear(32, 10),
    )
    return Task(
        model=model, loss="cross_entropy", optimizer=partial(Adam, lr=3e-3), batch_size=64, epochs=5,
        **data.digits(seed).parts(),
    )  # fmt: skip


class Length(nn.Module):
    """The length of each row's features, whose slope is not finite at 0."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        length = (x.square().sum(-1, keepdim=True) + self.eps).sqrt()
        return x / (1 + length)


@case("non-finite-gradient", "non-finite", margin=0.4)
def root_of_zero(seed: int, mended: bool) -> Task:
    parts = data.digits(seed)
    parts.train[0][::40] = 0  # blank images: the features of a layer without bias are 0 for them
    model = nn.Sequential(
        nn.Linear(64, 32, bias=False), nn.Tanh(), Length(1e-6 if mended else 0.0), nn.Linear(32, 10)
    )
    return Task(
        model=model, loss=nn.CrossEntropyLoss(), optimizer=partial(Adam, lr=0.01), batch_size=64,
        epochs=8, **parts.parts(),
    )  # fmt: skip


def with_bias(model: nn.Module, value: float) -> nn.Module:
    """Set the biases of all hidden layers."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    with torch.no_grad():
        for layer in layers[:-1]:
            layer.bias.fill_(value)
    return model


@case("dead-relu-mlp", "dead-units", "bad-init", margin=0.3, also=("plateau", "vanishing-gradient"))
def dead(seed: int, mended: bool) -> Task:
    model = mlp(64, 32, 32, 10)
    return Task(
        model=model if mended else with_bias(model, -5.0), loss=nn.CrossEntropyLoss(), batch_size=64,
        optimizer=partial(SGD, lr=0.1), epochs=8, **data.digits(seed).parts(),
    )  # fmt: skip


@case(
    "dead-relu-by-lr", "lr-too-high", "dead-units", margin=0.3,
    also=("plateau", "exploding-gradient", "noise-floor", "stationary-point"),
    unsure="the step size killed the units: cause and sign",
)  # fmt: skip
def dead_by_lr(seed: int, mended: bool) -> Task:
    return Task(
        model=cnn(), loss=nn.CrossEntropyLoss(), batch_size=64, epochs=6,
        optimizer=partial(RMSprop, lr=1e-3 if mended else 0.3), **data.images(data.digits(seed)).parts(),
    )  # fmt: skip


@case(
    "saturated-tanh", "saturated-units", "bad-init", "unscaled-inputs", margin=0.05,
    also=("vanishing-gradient", "exploding-gradient"),
    unsure="the units saturate because the first weights are too large",
)  # fmt: skip
def saturated(seed: int, mended: bool) -> Task:
    model = mlp(64, 64, 64, 10, activation=nn.Tanh)
    return Task(
        model=model if mended else scaled(model, 25.0), loss=nn.CrossEntropyLoss(), batch_size=64,
        optimizer=partial(SGD, lr=0.05), epochs=8, **data.digits(seed).parts(),
    )  # fmt: skip


@case(
    "saturated-by-inputs", "unscaled-inputs", "saturated-units", margin=0.1, measure=accuracy(),
    also=("vanishing-gradient",),
)  # fmt: skip
def saturated_by_inputs(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(13, 16, 3, activation=nn.Sigmoid), loss="cross_entropy", batch_size=16, epochs=40,
        optimizer=partial(Adam, lr=0.01), **data.loaded("wine", seed, scaled=mended).parts(),
    )  # fmt: skip


@case(
    "symmetric-init-mlp", "symmetric-init", "saddle-point", margin=0.2, also=("plateau", "bad-init")
)
def symmetric(seed: int, mended: bool) -> Task:
    model = mlp(64, 32, 10, activation=nn.Tanh)
    if not mended:
        for weight in model.parameters():
            nn.init.constant_(weight, 0.02)
    return Task(
        model=model, loss=nn.CrossEntropyLoss(), optimizer=partial(Adam, lr=3e-3), batch_size=64, epochs=8,
        **data.digits(seed).parts(),
    )  # fmt: skip


@case(
    "zero-init", "symmetric-init", "saddle-point", margin=0.3,
    also=("plateau", "bad-init", "dead-units", "stationary-point"),
)  # fmt: skip
def zero_init(seed: int, mended: bool) -> Task:
    model = mlp(2, 16, 16, 2)
    if not mended:
        for weight in model.parameters():
            nn.init.zeros_(weight)
    return Task(
        model=model, loss="cross_entropy", optimizer=partial(SGD, lr=0.3, momentum=0.9), batch_size=32,
        epochs=15, **data.moons(seed).parts(),
    )  # fmt: skip


@case("bad-init-huge", "bad-init", margin=0.05, also=("exploding-gradient", "dead-units"))
def huge_init(seed: int, mended: bool) -> Task:
    model = mlp(64, 64, 64, 10)
    if not mended:
        for weight in model.parameters():
            nn.init.normal_(weight, std=3.0)
    return Task(
        model=model, loss=nn.CrossEntropyLoss(), optimizer=partial(Adam, lr=1e-3), batch_size=64, epochs=8,
        **data.digits(seed).parts(),
    )  # fmt: skip


@case(
    "bad-init-tiny", "bad-init", "vanishing-gradient", margin=0.3, also=("plateau", "saddle-point")
)
def tiny_init(seed: int, mended: bool) -> Task:
    model = mlp(64, 48, 48, 48, 10)
    return Task(
        model=model if mended else scaled(model, 0.01), loss=nn.CrossEntropyLoss(), batch_size=64, epochs=8,
        optimizer=partial(SGD, lr=0.1), **data.digits(seed).parts(),
    )  # fmt: skip
