"""Published bugs from the papers of other tools and from issue trackers, rebuilt."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, RMSprop
from torch.utils.data import Dataset

from cases import data
from cases.case import case
from cases.measures import accuracy, explained, flattery
from cases.models import mlp
from ravine import Task


@case(
    "autotrainer-blobs", "batch-too-small", "lr-too-high", "noise-floor", source="AUTOTRAINER",
    also=("unlearnable-data",), margin=0.03,
)  # fmt: skip
def blobs(seed: int, mended: bool) -> Task:
    X, y = data.datasets.make_blobs(1000, centers=3, cluster_std=2, random_state=seed)
    parts = data.split(torch.as_tensor(X), torch.as_tensor(y).long(), seed, scaled=False)
    return Task(
        model=mlp(2, 50, 3), loss=nn.CrossEntropyLoss(), batch_size=32 if mended else 1, epochs=4,
        optimizer=partial(SGD, lr=0.01, momentum=0.9), **parts.parts(),
    )  # fmt: skip


@case(
    "deepchecker-lr", "lr-too-high", source="TheDeepChecker", measure=explained(), margin=0.1,
    also=("dead-units", "exploding-gradient"),
)  # fmt: skip
def tabular(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(9, 64, 64, 1), loss=nn.MSELoss(), batch_size=32, epochs=20,
        optimizer=partial(RMSprop, lr=1e-3 if mended else 0.1), **data.friedman(seed).parts(),
    )  # fmt: skip


@case("umlaut-linear-convolutions", "missing-nonlinearity", source="UMLAUT", margin=0.2)
def linear_convolutions(seed: int, mended: bool) -> Task:
    between = nn.ReLU if mended else nn.Identity
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), between(), nn.Conv2d(8, 8, 3, padding=1), between(),
        nn.Flatten(), nn.Linear(512, 2),
    )  # fmt: skip
    return Task(
        model=model, loss=nn.CrossEntropyLoss(), batch_size=32, epochs=8,
        optimizer=partial(Adam, lr=3e-3), **data.bars(seed).parts(),
    )  # fmt: skip


@case(
    "umlaut-leak", "data-leak", source="UMLAUT", measure=flattery(accuracy), margin=0.02,
)  # fmt: skip
def leak(seed: int, mended: bool) -> Task:
    parts = data.digits(seed, 300)
    if not mended:
        rows = torch.randperm(300, generator=data.generator(seed))[:150]
        parts = parts._replace(valid=(parts.train[0][rows], parts.train[1][rows]))
    return Task(
        model=mlp(64, 64, 10), loss=nn.CrossEntropyLoss(), batch_size=32, epochs=15,
        optimizer=partial(Adam, lr=3e-3), **parts.parts("train", "valid", "test"),
    )  # fmt: skip


class Augmented(Dataset[Any]):
    """Rows with random noise; the fault: each drawing begins at the same random numbers."""

    def __init__(self, pair: tuple[Tensor, Tensor], repeats: bool) -> None:
        self.pair = pair
        self.repeats = repeats

    def __len__(self) -> int:
        return len(self.pair[0])

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator()
        if self.repeats:
            generator.manual_seed(row % 2)  # as two workers that were seeded alike
        else:
            generator.manual_seed(int(torch.randint(0, 2**31, ())))
        noise = 1.5 * torch.randn(self.pair[0].shape[1:], generator=generator)
        return self.pair[0][row] + noise, self.pair[1][row]


@case(
    "so-67180955-same-augmentation", "train-valid-mismatch", "overfitting", source="SO 67180955",
    margin=0.03, unsure="no name of the list says that an augmentation repeats",
)  # fmt: skip
def same_augmentation(seed: int, mended: bool) -> Task:
    parts = data.digits(seed, 150)
    return Task(
        model=mlp(64, 64, 10), loss=nn.CrossEntropyLoss(), batch_size=32, epochs=20,
        optimizer=partial(Adam, lr=3e-3), train=Augmented(parts.train, not mended),
        valid=Augmented(parts.valid, repeats=False),
    )  # fmt: skip


class Detached(SGD):
    """Holds the weights as they were before the model was wrapped: they share nothing with it."""

    def __init__(self, params: Any, **options: Any) -> None:
        params = list(params)
        super().__init__(params, **options)
        self.copies = [torch.nn.Parameter(weight.detach().clone()) for weight in params]

    def step(self, closure: Any = None) -> Any:
        held = self.param_groups[0]["params"]
        for copy, weight in zip(self.copies, held, strict=True):
            copy.grad = weight.grad
        self.param_groups[0]["params"] = self.copies
        try:
            return super().step(closure)
        finally:
            self.param_groups[0]["params"] = held


@case("accelerate-2665-step", "step-has-no-effect", source="accelerate issue 2665", margin=0.3)
def detached(seed: int, mended: bool) -> Task:
    return Task(
        model=mlp(64, 32, 10), loss=nn.CrossEntropyLoss(), batch_size=64, epochs=5,
        optimizer=partial(SGD if mended else Detached, lr=0.1), **data.digits(seed).parts(),
    )  # fmt: skip
