"""Small programs for the tests of the diagnosis, and what makes evidence of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ravine import Task
from ravine.diagnose.evidence import Evidence
from ravine.diagnose.program import Program

ADAM = partial(torch.optim.Adam, lr=0.01)
Pair = tuple[Tensor, Tensor]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clusters(rows: int, classes: int = 3, seed: int = 0, spread: float = 0.5) -> Pair:
    """Clusters on the axes of as many dimensions as classes, in a random order."""
    y = torch.randint(0, classes, (rows,), generator=generator(seed))
    noise = spread * torch.randn(rows, classes, generator=generator(seed + 1))
    return 2 * nn.functional.one_hot(y, classes).float() + noise, y


def line(rows: int, columns: int = 4, seed: int = 0, noise: float = 0.1) -> Pair:
    """Numbers that follow linearly from the columns."""
    X = torch.randn(rows, columns, generator=generator(seed))
    y = X @ torch.arange(1.0, columns + 1)[:, None] / columns
    return X, y + noise * torch.randn(rows, 1, generator=generator(seed + 1))


def net(*widths: int, head: nn.Module | None = None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1], *([] if head is None else [head]))


def program(
    train: Pair,
    model: Callable[[], nn.Module],
    loss: Any,
    *,
    optimizer: Any = ADAM,
    **options: Any,
) -> Callable[[int], Task]:
    """Return a function of a seed that makes the task afresh."""
    settings: dict[str, Any] = {"epochs": 10, "batch_size": 32, **options}
    return lambda seed: Task(model=model(), loss=loss, train=train, optimizer=optimizer, **settings)


def evidence_of(function: Any, seconds: float = 60.0) -> Evidence:
    return Evidence(Program(function, 0), time.perf_counter() + seconds)


def names(suspicions: Any) -> list[str]:
    return [one.finding.name for one in suspicions]
