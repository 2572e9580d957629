"""A run that is stopped early: when, and which weights are kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from training_cases import overfitting, points, same, weights

import ravine
from ravine.training.events import RunEnded

STOPPED = {"optimizer": "adam(lr=0.05)", "epochs": 60, "batch_size": 10}


def test_early_stopping_brings_back_the_best_weights_and_says_so() -> None:
    model: list[nn.Module] = []

    def spy(event: Any) -> None:
        if isinstance(event, RunEnded):
            model.append(event.record.model)

    made = overfitting(test=points(20, seed=9))
    record = ravine.train(made, **STOPPED, regularize="early_stopping(patience=4)", listeners=[spy])
    losses = record.history.column("valid/loss")
    best = losses.index(min(losses)) + 1
    assert record.status == "stopped early"
    assert len(losses) == best + 4 < 60
    assert record.metrics["best_epoch"] == best
    assert record.metrics["valid/loss"] == min(losses)
    assert f"best {min(losses):.6g} at epoch {best}" in record.message
    assert f"the weights of epoch {best} are kept" in record.message
    assert model == [record.model]
    # The same run, ended at the best epoch, has the same weights; so have its test numbers.
    short = ravine.train(made, **STOPPED | {"epochs": best}, regularize=())
    assert same(weights(record.model), weights(short.model))
    assert record.metrics["test/loss"] == short.metrics["test/loss"]


def test_the_best_weights_come_back_also_where_the_run_was_not_stopped() -> None:
    record = ravine.train(
        overfitting(), **STOPPED | {"epochs": 20}, regularize="early_stopping(40)"
    )
    losses = record.history.column("valid/loss")
    assert record.status == "completed"
    assert record.metrics["valid/loss"] == min(losses) < losses[-1]
    assert record.metrics["best_epoch"] == losses.index(min(losses)) + 1


def test_early_stopping_can_leave_the_last_weights() -> None:
    choice = "early_stopping(patience=4, restore_best=False)"
    record = ravine.train(overfitting(), **STOPPED, regularize=choice)
    assert record.status == "stopped early"
    assert "best_epoch" not in record.metrics
    assert record.metrics["valid/loss"] == record.history[-1]["valid/loss"]
    assert record.message.startswith("valid/loss has not improved for 4 epochs")
    short = ravine.train(overfitting(), **STOPPED | {"epochs": len(record.history)}, regularize=())
    assert same(weights(record.model), weights(short.model))


def test_early_stopping_on_accuracy_and_on_the_training_loss() -> None:
    record = ravine.train(
        overfitting(), **STOPPED, regularize="early_stopping(3, 'valid/accuracy')"
    )
    assert record.metrics["valid/accuracy"] == max(record.history.column("valid/accuracy"))
    alone = overfitting(valid=None)
    record = ravine.train(
        alone, "sgd(lr=0)", epochs=9, regularize="early_stopping(2, 'train/loss')"
    )
    assert len(record.history) == 3
    with pytest.raises(LookupError, match="valid/loss"):
        ravine.train(alone, regularize="early_stopping()")


# Schedules that listen, averages


def test_early_stopping_keeps_the_best_average() -> None:
    choices = STOPPED | {"optimizer": "adam(lr=0.05, average=0.7)"}
    record = ravine.train(overfitting(), **choices, regularize="early_stopping(3)")
    X, y = points(20, seed=1)
    with torch.no_grad():
        reached = nn.functional.cross_entropy(record.model(X), y).item()
    assert reached == pytest.approx(min(record.history.column("valid/loss")), rel=1e-5)
