"""The regularisers of a run: every form of them, and those that contradict."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from names import named
from torch import nn
from training_cases import line, same, task, weights

import ravine
from ravine import regularize
from ravine.errors import (
    ArgumentError,
    RavineError,
)


@pytest.mark.parametrize(
    "given",
    [
        ["l2(0.1)", "clip_norm(1)"],
        [REG := regularize.REGULARIZERS["l2"](0.1), "clip_norm(1.0)"],
        (REG, regularize.REGULARIZERS["clip_norm"](1)),
        iter(["clip_norm(1)", "l2(0.1)"]),
    ],
    ids=["texts", "mixed", "objects", "iterator"],
)
def test_regularisers_in_every_form_are_options_of_the_optimizer(given: Any) -> None:
    record = ravine.train(task(), "sgd(lr=0.1)", epochs=2, regularize=given)
    known = ravine.train(task(), "sgd(lr=0.1, l2=0.1, clip_norm=1)", epochs=2)
    assert same(weights(record.model), weights(known.model))
    assert sorted(record.config["regularize"]) == ["clip_norm(1)", "l2(0.1)"] or sorted(
        record.config["regularize"]
    ) == ["clip_norm(1.0)", "l2(0.1)"]


def test_one_regulariser_needs_no_list_and_none_is_none() -> None:
    made = task(regularize=["dropout(0.5)"])
    assert ravine.train(made, epochs=0).config["regularize"] == ["dropout(0.5)"]
    assert ravine.train(made, epochs=0, regularize="l2(1.0)").config["regularize"] == ["l2(1.0)"]
    assert ravine.train(made, epochs=0, regularize=REG).config["regularize"] == ["l2(0.1)"]
    for nothing in ((), [], "none", ["none"], [" none "]):
        assert ravine.train(made, epochs=0, regularize=nothing).config["regularize"] == []


@pytest.mark.parametrize(
    ("given", "optimizer", "words"),
    [
        (["l2(0.1)"], "sgd(lr=1, l2=0.2)", ["l2 is given twice", "l2=0.2 in the optimizer"]),
        (["l2(0.1)", "l2(0.1)"], None, ["l2 is given twice", "leave one out"]),
        (["dropout(0.1)", "dropout(0.2)"], None, ["dropout(0.1) and dropout(0.2)"]),
        (["early_stopping(1)", "early_stopping(2)"], None, ["early_stopping is given twice"]),
        (["l2(0.1)"], partial(torch.optim.SGD, lr=1.0), ["l2", "not Ravine's", "SGD(lr=1.0)"]),
        (["none", "l2(0.1)"], None, ["'none' stands for no regulariser"]),
        (["dropot(0.1)"], None, ["unknown regularizer 'dropot'", "did you mean 'dropout'?"]),
        (["dropout(q=0.1)"], None, ["no option 'q'", "^"]),
        (["dropout(1.5)"], None, ["1.5", "^^^"]),
        ([nn.Dropout(0.1)], None, ["not a regulariser", "dropout", "none"]),
        ([type(REG)], None, ["not a regulariser"]),
        (3, None, ["not a regulariser", "3"]),
        (
            "early_stopping(metric='valid/acuracy', mode='max')",
            None,
            ["did you mean 'valid/accuracy'?"],
        ),
    ],
    ids=named,
)
def test_regularisers_that_contradict_or_do_not_exist(
    given: Any, optimizer: Any, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(RavineError) as caught:
        ravine.train(task(), optimizer, epochs=1, regularize=given, run_dir=tmp_path / "run")
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_same_option_twice_with_one_value_is_no_contradiction() -> None:
    record = ravine.train(task(), "sgd(lr=1, l2=0.1)", epochs=0, regularize="l2(0.1)")
    assert record.config["optimizer"] == "sgd(lr=1, l2=0.1)"


def test_a_model_without_a_place_for_dropout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError):
        ravine.train(line(), regularize="dropout(0.1)", run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
