"""Early stopping: patience, the best weights, a resumed run."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from ravine.errors import (
    ArgumentError,
    ArgumentTypeError,
    UnknownNameError,
)
from ravine.regularize import (
    Dropout,
    EarlyStopping,
)


def feed(stopper: EarlyStopping, values: list[float]) -> list[bool]:
    return [stopper.observe({stopper.metric: value}) for value in values]


def test_patience_and_the_best():
    stopper = EarlyStopping(patience=2, restore_best=False)
    assert feed(stopper, [3, 2, 2, 1.5, 1.6, 1.7]) == [False] * 5 + [True]
    assert (stopper.best, stopper.best_epoch, stopper.epoch) == (1.5, 4, 6)
    assert stopper.message == ("valid/loss has not improved for 2 epochs: best 1.5 at epoch 4")
    rising = EarlyStopping(patience=1, metric="valid/accuracy", restore_best=False)
    assert feed(rising, [0.1, 0.2, 0.2]) == [False, False, True]
    assert rising.mode == "max"


def test_min_delta_is_measured_from_the_best():
    stopper = EarlyStopping(patience=3, min_delta=0.5, restore_best=False)
    assert feed(stopper, [2.0, 1.75, 1.5, 1.25]) == [False] * 4  # 1.25 is 0.75 below the best
    assert (stopper.best, stopper.best_epoch) == (1.25, 4)
    assert feed(stopper, [0.75, 1, 1]) == [False, False, True]  # exactly min_delta is not enough


def test_nan_and_infinity_are_waited_out():
    stopper = EarlyStopping(patience=3, restore_best=False)
    assert feed(stopper, [math.nan, math.inf, 2.0, -math.inf, math.nan, math.nan]) == (
        [False] * 5 + [True]
    )
    assert stopper.best == 2.0
    never = EarlyStopping(patience=1)
    assert never.observe({"valid/loss": math.nan}, nn.Linear(1, 1))
    assert never.best is None
    assert "never finite" in never.message
    assert never.restore(nn.Linear(1, 1)) is False


def test_the_best_weights_come_back_and_the_counters_do_not():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), Dropout(0.5, seed=0))
    stopper = EarlyStopping(patience=5)
    for loss in (3.0, 1.0, 2.0):
        model(torch.randn(4, 2))
        with torch.no_grad():
            model[0].weight.fill_(loss)
        stopper.observe({"valid/loss": loss}, model)
    expected_mean = stopper._weights["1.running_mean"].clone()
    assert stopper.restore(model)
    assert torch.equal(model[0].weight, torch.full((2, 2), 1.0))
    assert torch.equal(model[1].running_mean, expected_mean)
    assert model[1].num_batches_tracked == 2
    assert model[2].stream.tolist() == [0, 3]


def test_a_resumed_run_stops_at_the_same_epoch():
    values = [3.0, 1.0, 1.5, 1.4, 1.3]
    model = nn.Linear(1, 1)
    whole, first = EarlyStopping(patience=3), EarlyStopping(patience=3)
    for value in values[:3]:
        first.observe({"valid/loss": value}, model)
    second = EarlyStopping(patience=3)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    resumed = [second.observe({"valid/loss": value}, model) for value in values[3:]]
    assert resumed == [whole.observe({"valid/loss": v}, model) for v in values][3:]
    assert second.state_dict().keys() == first.state_dict().keys()
    assert second.restore(model)
    with pytest.raises(ArgumentError, match="another metric"):
        EarlyStopping(metric="train/loss").load_state_dict(first.state_dict())


def test_early_stopping_refuses():
    with pytest.raises(UnknownNameError, match=r"(?s)valid/loss.*train/loss, valid/los.*did you"):
        EarlyStopping().observe({"train/loss": 1.0, "valid/los": 1.0}, nn.Linear(1, 1))
    with pytest.raises(ArgumentTypeError, match="restore_best=False"):
        EarlyStopping().observe({"valid/loss": 1.0})
    with pytest.raises(ArgumentError, match="lower is better"):
        EarlyStopping(metric="valid/quality")
    with pytest.raises(ArgumentError, match="lower is better"):
        EarlyStopping(metric="accuracy/loss")
    with pytest.raises(ArgumentError, match="patience"):
        EarlyStopping(patience=0)
    with pytest.raises(ArgumentError, match="unknown mode"):
        EarlyStopping(mode="down")
    with pytest.raises(ArgumentError, match="no best weights"):
        EarlyStopping(restore_best=False).restore(nn.Linear(1, 1))
