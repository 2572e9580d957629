"""Models and metrics of one's own that do what the usual ones do not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from training_cases import task

import ravine
from ravine.errors import ShapeError


def test_a_metric_that_returns_nothing_or_one_number() -> None:
    def nothing(output: Tensor, target: Tensor) -> Tensor:
        return output[:0]

    def one(output: Tensor, target: Tensor) -> Tensor:
        return (output.argmax(1) == target).double().mean()

    with pytest.raises(ShapeError, match="metric 'nothing' returned nothing"):
        ravine.train(task(metrics=[nothing]), epochs=1)
    record = ravine.train(task(metrics=[one, "accuracy"]), epochs=1)
    assert record.metrics["valid/one"] == pytest.approx(record.metrics["valid/accuracy"])


def test_what_a_model_keeps_of_its_evaluation_can_be_trained_through() -> None:
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))
            self.out = nn.Linear(4, 3)
            self.seen: Tensor | None = None

        def forward(self, input: Tensor) -> Tensor:
            if not self.training:
                self.seen = torch.cos(input.mean(0))
            shift = self.seen if self.seen is not None else torch.zeros(4)
            output: Tensor = self.out(input * self.scale * shift)
            return output

    record = ravine.train(task(model=Remembers()), epochs=2)
    assert math.isfinite(record.metrics["train/loss"])


def test_a_buffer_that_grows_is_no_trouble() -> None:
    class Grows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(4, 3)
            self.register_buffer("table", torch.zeros(0), persistent=False)

        def forward(self, input: Tensor) -> Tensor:
            if len(self.table) < len(input):
                self.table = torch.zeros(len(input))
            output: Tensor = self.out(input) + self.table[: len(input), None]
            return output

    record = ravine.train(task(model=Grows()), batch_size=7, epochs=2)
    assert record.status == "completed"
