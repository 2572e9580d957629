"""Small programs for the tests of layers, architecture and flat losses: each healthy or with a fault."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from ravine import Task
from ravine.diagnose.evidence import Evidence
from ravine.diagnose.program import Program
from ravine.diagnose.suspicion import Suspicion


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Run on one thread, as ``diagnose`` does with programs so small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows(seed: int = 0, count: int = 256) -> tuple[Tensor, Tensor]:
    """Points in the plane and whether they lie in a ring."""
    X = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return X, (X.norm(dim=1) > 1.2).long()


def mlp(*widths: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1])


def evidence(make: Callable[[], nn.Module], **settings: Any) -> Evidence:
    """Return the evidence of a program that learns the ring."""
    given = {
        "loss": "cross_entropy",
        "train": rows(),
        "optimizer": partial(SGD, lr=0.1),
        "batch_size": 32,
        "epochs": 4,
        **settings,
    }

    def task(seed: int) -> Task:
        return Task(model=make(), **given)

    return Evidence(Program(task), time.perf_counter() + 60)


def names(suspicions: Any) -> dict[str, Suspicion]:
    """Return suspicions by the name of their finding; the first of each."""
    found: dict[str, Suspicion] = {}
    for one in suspicions:
        found.setdefault(one.finding.name, one)
    return found
