"""Made faults of scale: inputs and targets in units that the net was not made for."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from cases import data
from cases.case import case
from cases.measures import explained
from cases.models import mlp
from ravine import Task

CROSS_ENTROPY = nn.CrossEntropyLoss()


@case("unscaled-targets-mse", "unscaled-targets", margin=0.3, measure=explained(),
      also=("lr-too-low", "too-few-epochs", "exploding-gradient"))  # fmt: skip
def unscaled_targets(seed: int, mended: bool) -> Task:
    """House prices in dollars."""
    parts = data.friedman(seed)
    if not mended:
        parts = parts.mapped(y=lambda y: 60_000 * y + 250_000)
    return Task(
        model=mlp(9, 32, 1), loss="mse", batch_size=32, epochs=15, optimizer=partial(Adam, lr=5e-3),
        **parts.parts(),
    )  # fmt: skip


@case("unscaled-targets-sgd", "unscaled-targets", margin=0.3, measure=explained(),
      also=("lr-too-high", "exploding-gradient", "non-finite"))  # fmt: skip
def unscaled_targets_sgd(seed: int, mended: bool) -> Task:
    parts = data.loaded("diabetes", seed)
    if not mended:
        parts = parts.mapped(y=lambda y: 77 * y + 152)
    return Task(
        model=mlp(10, 16, 1), loss=nn.MSELoss(), batch_size=32, epochs=20,
        optimizer=partial(SGD, lr=0.02), **parts.parts(),
    )  # fmt: skip


@case("unscaled-inputs-wine", "unscaled-inputs", margin=0.1, also=("lr-too-low", "lr-too-high"))
def unscaled_inputs(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(13, 16, 3), loss="cross_entropy", batch_size=16, epochs=20,
        optimizer=partial(SGD, lr=0.1 if mended else 0.01),
        **data.loaded("wine", seed, scaled=mended).parts(),
    )  # fmt: skip


@case("unscaled-one-column", "unscaled-inputs", margin=0.03,
      also=("lr-too-high", "exploding-gradient", "dead-units"))  # fmt: skip
def one_column(seed: int, mended: bool) -> Task:
    """One column of noise in units of thousands drowns thirty that tell."""
    parts = data.loaded("breast_cancer", seed)
    source = data.generator(seed)

    def wider(X: Tensor) -> Tensor:
        noise = torch.randn(len(X), 1, generator=source)
        return torch.cat([X, noise if mended else 4000 * noise + 9000], 1)

    return Task(
        model=mlp(31, 16, 2), loss=CROSS_ENTROPY, batch_size=32, epochs=12,
        optimizer=partial(Adam, lr=3e-3), **parts.mapped(X=wider).parts(),
    )  # fmt: skip
