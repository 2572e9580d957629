"""Schedules that listen to a run, and the average of its weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from training_cases import mlp, overfitting, task, weights

import ravine


def test_plateau_listens_to_the_validation_loss() -> None:
    record = ravine.train(
        overfitting(), "adam(lr=plateau(0.05, factor=0.5, patience=1))", epochs=25, batch_size=10
    )
    rates = record.history.column("lr")
    losses = record.history.column("valid/loss")
    # torch's own plateau, told the same losses; its rate acts from the next epoch on.
    dummy = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.05)
    known = torch.optim.lr_scheduler.ReduceLROnPlateau(dummy, factor=0.5, patience=1)
    expected = []
    for loss in losses:
        expected.append(dummy.param_groups[0]["lr"])
        known.step(loss)
    assert rates == pytest.approx(expected, rel=1e-12)
    assert rates[-1] < 0.05


def test_plateau_listens_to_the_training_loss_where_nothing_is_validated() -> None:
    record = ravine.train(
        task(valid=None, loss=lambda o, t: 0 * o.sum()),
        "sgd(lr=plateau(0.1, patience=1))",
        epochs=5,
    )
    assert record.history.column("lr") == pytest.approx([0.1, 0.1, 0.1, 0.01, 0.01])


def test_the_average_is_what_is_validated_and_kept() -> None:
    made = task()
    steps: list[dict[str, Tensor]] = []

    class Watched(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            if self.training:
                steps.append(weights(self))
            return super().forward(input)

    torch.manual_seed(0)
    watched = task(model=Watched(*mlp()))
    record = ravine.train(watched, "sgd(lr=0.5, average=0.8)", batch_size=20, epochs=3)
    plain = ravine.train(watched, "sgd(lr=0.5)", batch_size=20, epochs=3)
    raw = [*steps[1:6], weights(plain.model)]
    average = steps[0]
    for weight in raw:
        average = {name: 0.8 * average[name] + 0.2 * weight[name] for name in average}
    for name, value in weights(record.model).items():
        assert torch.allclose(value, average[name], atol=1e-6)
    X, y = made.valid
    with torch.no_grad():
        output = record.model(X)
    expected = nn.functional.cross_entropy(output, y).item()
    assert record.metrics["valid/loss"] == pytest.approx(expected, rel=1e-5)
    # The training itself is not disturbed by looking at the average.
    assert record.history.column("train/loss") == plain.history.column("train/loss")
