"""Small tasks that the tests of training share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import ravine


def points(rows: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs of four columns, in three classes that a linear model can tell apart mostly."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(rows, 4, generator=generator)
    return X, X[:, :3].argmax(1)


def mlp(dropout: float = 0.0) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3))


def task(seed: int = 0, **changes: Any) -> ravine.Task:
    """Three classes by a small network, with validation data."""
    torch.manual_seed(seed)
    parts: dict[str, Any] = {
        "name": "points",
        "model": mlp(),
        "loss": "cross_entropy",
        "train": points(),
        "valid": points(20, seed=1),
        "metrics": ["accuracy"],
    }
    return ravine.Task(**parts | changes)


def overfitting(**changes: Any) -> ravine.Task:
    """Labels that are noise: the validation loss rises as soon as they are learnt."""
    X, _ = points(30)
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(0, 3, (30,), generator=generator)
    return task(train=(X, y), **changes)


def line(rows: int = 16, slope: float = 2.0, **changes: Any) -> ravine.Task:
    """A straight line, in float64, from weight and bias zero."""
    model = nn.Linear(1, 1).double()
    for weight in model.parameters():
        nn.init.zeros_(weight)
    x = torch.linspace(-1, 1, rows, dtype=torch.float64)[:, None]
    parts: dict[str, Any] = {"name": "line", "model": model, "loss": "mse"}
    return ravine.Task(**parts | {"train": (x, slope * x + 1)} | changes)


class Rows(Dataset[Any]):
    def __init__(self, data: tuple[Tensor, Tensor]) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data[0])

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.data[0][row], self.data[1][row]


class Stream(IterableDataset[Any]):
    def __init__(self, data: tuple[Tensor, Tensor]) -> None:
        self.data = data

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(zip(*self.data, strict=True))


FORMS = {
    "tensors": lambda data: data,
    "dataset": Rows,
    "tensor dataset": lambda data: TensorDataset(*data),
    "stream": Stream,
    "loader": lambda data: DataLoader(TensorDataset(*data), batch_size=16, shuffle=True),
    "loader with a batch sampler": lambda data: DataLoader(
        TensorDataset(*data),
        batch_sampler=[list(range(k, min(k + 16, 40))) for k in range(0, 40, 16)],
    ),
    "loader of a stream": lambda data: DataLoader(Stream(data), batch_size=16),
}
"""Every form in which a task can hold its training data."""


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def numbers(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without their times."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


def poisoned(rows: int = 40, bad: int = 33) -> tuple[Tensor, Tensor]:
    """Inputs whose square is infinite in one row: a finite task whose loss is not."""
    X, y = points(rows)
    X[bad] = 1e30
    return X, y
