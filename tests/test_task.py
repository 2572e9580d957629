"""A Task: what it keeps, what it refuses, and with another loss."""

from __future__ import annotations

import math

import pytest
import torch
from task_cases import make
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ravine import losses
from ravine.errors import (
    TaskError,
    UnknownNameError,
)
from ravine.tasks.loss_names import loss_name

X, Y = torch.zeros(4, 2), torch.zeros(4, 1)
HOLED = torch.tensor([[0.0, 1.0], [math.nan, 1.0]])

WRONG = {
    "lengths": ({"train": (X, Y[:3])}, "differ in length", "X (4, 2), y (3, 1)"),
    "empty": ({"train": (X[:0], Y[:0])}, "empty", "one row at least"),
    "rows": ({"train": ([[0.0, 0.0]] * 4, Y)}, "X is not a tensor", "torch.as_tensor(X)"),
    "list": ({"train": (X, [0, 1, 0, 1])}, "y is not a tensor", "builtins.list"),
    "one tensor": ({"train": X}, "neither a pair", "train=(X, y)"),
    "triple": ({"train": (X, Y, Y)}, "neither a pair", "tuple of 3 items"),
    "nan": ({"train": (HOLED, Y[:2])}, "not finite", "nan at X[1, 0]"),
    "inf": ({"train": (X, Y + math.inf)}, "y holds values", "4 of 4; the first is inf"),
    "scalar": ({"train": (X[0, 0], Y)}, "single number", "X[None]"),
    "valid": ({"valid": (X, Y[:3])}, "differ in length", "valid of task 'task'"),
    "valid dtype": ({"valid": (X.double(), Y)}, "another kind", "torch.float64"),
    "empty dataset": ({"train": TensorDataset(X[:0], Y[:0])}, "empty", "TensorDataset"),
    "model": ({"model": lambda x: x}, "not a torch module", "function"),
    "model class": ({"model": nn.Linear}, "not a torch module", "call the class"),
    "loss": ({"loss": 3}, "neither a callable nor an expression", "got:      3"),
    "loss class": ({"loss": nn.MSELoss}, "neither a callable", "call the class"),
    "blank loss": ({"loss": " "}, "neither a callable", "loss="),
    "metrics": ({"metrics": "accuracy"}, "metrics is not a list", 'metrics=["accuracy"]'),
    "metric": ({"metrics": [3]}, "neither a name nor a function", "accuracy"),
    "metric twice": ({"metrics": ["accuracy", "accuracy"]}, "two metrics", "by name"),
    "epochs": ({"epochs": 0}, "epochs is not a count", "got:      0"),
    "batch": ({"batch_size": True}, "batch_size is not a count", "'all'"),
    "regularize": ({"regularize": "dropout(0.1)"}, "not a list", "['dropout(0.1)']"),
    "name": ({"name": ""}, "name of the task", "not empty"),
    "conversion": (
        {"train": TensorDataset(X, Y), "targets_for": {"hinge": torch.neg}},
        "targets_for",
        "TensorDataset",
    ),
}


@pytest.mark.parametrize("changes, what, detail", WRONG.values(), ids=WRONG)
def test_a_wrong_task_is_refused_with_the_mend(changes, what, detail):
    with pytest.raises(TaskError) as caught:
        make(**changes)
    assert what in caught.value.what
    assert detail in str(caught.value)


def test_unknown_metric_names_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'accuracy'"):
        make(metrics=["acuracy"])


def test_datasets_and_loaders_are_kept_as_they_are():
    data = TensorDataset(X, Y)
    loader = DataLoader(data, batch_size=2)
    task = make(train=data, valid=loader)
    assert task.train is data
    assert task.valid is loader
    assert "train 4, valid 4, test none" in repr(task)


def test_a_task_does_not_change_after_construction():
    with pytest.raises(AttributeError):
        make().loss = "huber"


def test_with_loss_converts_each_part_and_only_for_the_loss_in_the_table():
    y = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
    task = make(
        train=(X, y), valid=(X[:2], y[:2]), targets_for={"hinge": lambda y: 2 * y - 1}, baseline=1.0
    )
    hinge = task.with_loss("hinge(weight=2)")
    assert hinge.train[1].flatten().tolist() == [-1, 1, 1, -1]
    assert hinge.valid[1].flatten().tolist() == [-1, 1]
    assert hinge.model is task.model
    assert hinge.baseline is None
    assert task.train[1] is y
    assert task.with_loss("mse").train[1] is y
    # All targets equal: nothing can be guessed from the values, and nothing is.
    ones = make(train=(X, Y + 1), targets_for={"hinge": lambda y: 2 * y - 1})
    assert ones.with_loss("hinge").train[1].unique().tolist() == [1]
    with pytest.raises(TaskError, match="neither a callable"):
        task.with_loss(3)


def test_a_loss_is_named_by_expression_or_if_it_is_ours():
    def hinge(output, target):
        return output.mean()

    assert loss_name(hinge) is None
    hinge.__module__ = "ravine.losses"
    assert loss_name(hinge) == "hinge"
    for name, module in losses.LOSSES.items():
        assert loss_name(module) == loss_name(module()) == name
    assert loss_name(losses.KLDivergence()) == "kl_divergence"
    assert loss_name("huber(delta=") is None
