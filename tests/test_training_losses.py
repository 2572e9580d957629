"""The loss of a run: every form of it, its options, and what is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from names import named
from torch import Tensor, nn
from training_cases import points, task

import ravine
from ravine import losses
from ravine.errors import (
    ArgumentError,
    ArgumentTypeError,
    ExpressionError,
    RavineError,
    ShapeError,
    TaskError,
    UnknownOptionError,
)


def own_loss(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output, target)


# Losses


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        ("cross_entropy", "cross_entropy()"),
        ("cross_entropy()", "cross_entropy()"),
        (losses.cross_entropy, "cross_entropy()"),
        (losses.CrossEntropy(), "cross_entropy()"),
        (nn.CrossEntropyLoss(), "CrossEntropyLoss()"),
        (nn.functional.cross_entropy, "cross_entropy"),
        (own_loss, "own_loss"),
        (partial(own_loss), "own_loss()"),
    ],
    ids=named,
)
@pytest.mark.parametrize("given_to", ["task", "train"])
def test_a_loss_in_every_form_is_the_same_loss(loss: Any, text: str, given_to: str) -> None:
    if given_to == "task":
        record = ravine.train(task(loss=loss), "sgd(lr=0.1)", epochs=3)
    else:
        record = ravine.train(task(loss="hinge"), "sgd(lr=0.1)", epochs=3, loss=loss)
    known = ravine.train(task(), "sgd(lr=0.1)", epochs=3)
    assert record.config["loss"] == text
    assert record.metrics["train/loss"] == pytest.approx(known.metrics["train/loss"], rel=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        "cross_entropy(label_smoothing=0.1)",
        losses.CrossEntropy(label_smoothing=0.1),
        partial(losses.cross_entropy, label_smoothing=0.1),
        nn.CrossEntropyLoss(label_smoothing=0.1),
    ],
    ids=["text", "module", "partial", "torch"],
)
def test_the_options_of_a_loss_hold(loss: Any) -> None:
    record = ravine.train(task(loss=loss), "sgd(lr=0.1)", epochs=2)
    smoothed = ravine.train(task(), "sgd(lr=0.1)", epochs=2, regularize="label_smoothing(0.1)")
    assert record.metrics["valid/loss"] == pytest.approx(smoothed.metrics["valid/loss"], rel=1e-5)
    assert smoothed.config["loss"] == "cross_entropy(label_smoothing=0.1)"


def test_smoothing_that_contradicts_the_loss_is_refused() -> None:
    loss = "cross_entropy(label_smoothing=0.2)"
    with pytest.raises(ArgumentError, match="label_smoothing is given twice"):
        ravine.train(task(loss=loss), regularize="label_smoothing(0.1)")
    ravine.train(task(loss=loss), epochs=0, regularize="label_smoothing(0.2)")


@pytest.mark.parametrize("loss", ["mse", "huber(delta=2)", losses.Hinge(), nn.MSELoss(), own_loss])
def test_smoothing_of_a_loss_without_it_is_refused(loss: Any) -> None:
    with pytest.raises(UnknownOptionError, match="no option 'label_smoothing'") as caught:
        ravine.train(task(loss=loss), regularize="label_smoothing(0.1)")
    assert "use cross_entropy, or leave label_smoothing out" in str(caught.value)


def test_the_callers_loss_module_is_not_touched() -> None:
    loss = nn.CrossEntropyLoss(weight=torch.ones(3))
    ravine.train(task(loss=loss), epochs=1)
    assert loss.training
    assert loss.weight is not None


@pytest.mark.parametrize(
    ("loss", "error", "words"),
    [
        ("hubr(delta=2)", ExpressionError, ["unknown loss 'hubr'", "did you mean 'huber'?"]),
        ("huber(dleta=2)", ExpressionError, ["no option 'dleta'", "      ^^^^^", "'delta'"]),
        ("huber(delta=-2)", ExpressionError, ["delta", "^^^"]),
        ("huber(delta=2", ExpressionError, ["cannot read this loss"]),
        (3, TaskError, ["neither a callable nor an expression"]),
        (nn.MSELoss, TaskError, ["call the class"]),
        (lambda o, t: 1.0, ArgumentTypeError, ["did not return a tensor", "float"]),
        (lambda o, t: (o.sum(1) - t) ** 2, ShapeError, ["one number", "(40,)", "reduction='mean'"]),
        (lambda o, t: o.mean().detach(), ArgumentTypeError, ["without a graph", ".detach()"]),
        ("mse", RavineError, ["shape"]),
    ],
)
def test_a_loss_that_cannot_be_used_is_refused(
    loss: Any, error: type[Exception], words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        ravine.train(task(), loss=loss, epochs=1, run_dir=tmp_path / "deep" / "run")
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert list(tmp_path.iterdir()) == []  # nothing came of it, and nothing is left of it


# Tasks


def test_the_loss_of_breast_cancer_decides_the_targets() -> None:
    record = ravine.train("breast-cancer", loss="hinge", epochs=2)
    assert record.config["loss"] == "hinge()"
    assert record.metrics["valid/accuracy"] > 0.8
    X, y = points()
    both = task(train=(X, y.float()[:, None]), valid=None, model=nn.Linear(4, 1), metrics=[])
    with pytest.raises(RavineError):
        ravine.train(both, loss="hinge", epochs=1)
