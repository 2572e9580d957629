"""The expressions that name regularisers, and what these do to a run."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import ravine.optim
from ravine.errors import (
    ArgumentError,
    ExpressionError,
)
from ravine.expression import parse
from ravine.regularize import (
    REGULARIZERS,
    Regularizer,
)

EXPRESSIONS = [
    "dropout(0.1)", "dropout(0.1, seed=3)", "early_stopping()",
    "early_stopping(patience=3, metric='train/loss', min_delta=0.5)", "label_smoothing(0.1)",
    "clip_norm(1.0)", "clip_value(0.5)", "l1(1e-05)", "l1(1e-05, proximal=True)", "l2(0.0001)",
]  # fmt: skip


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_the_repr_makes_the_same_again(text):
    made = parse(text, REGULARIZERS, kind="regularizer")
    assert isinstance(made, Regularizer)
    again = parse(repr(made), REGULARIZERS)
    assert again == made
    assert eval(repr(made).replace("seed=", "seed="), dict(REGULARIZERS)) == made


def test_what_they_do_to_a_run():
    def of(text):
        made = parse(text, REGULARIZERS)
        return made.optimizer_options(), made.loss_options(), made.stopper()

    assert of("clip_norm(1)") == ({"clip_norm": 1.0}, {}, None)
    assert of("clip_value(2)") == ({"clip_value": 2.0}, {}, None)
    assert of("l1(1e-5, proximal=True)") == ({"l1": 1e-5, "l1_proximal": True}, {}, None)
    assert of("l2(1e-4)") == ({"l2": 1e-4}, {}, None)
    assert of("label_smoothing(0.1)") == ({}, {"label_smoothing": 0.1}, None)
    _, _, stopper = of("early_stopping(3, 'valid/accuracy')")
    assert (stopper.patience, stopper.mode) == (3, "max")
    assert parse("l2(0)", REGULARIZERS).prepare_model(nn.Linear(1, 1)) == ""
    weight = nn.Parameter(torch.ones(1))
    for text in EXPRESSIONS:
        ravine.optim.SGD([weight], lr=0.1, **of(text)[0])


def test_the_dropout_of_a_run():
    made = parse("dropout(0.1)", REGULARIZERS)
    plain = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    other = copy.deepcopy(plain)
    assert made.prepare_model(plain, seed=1) == "dropout p=0.1 inserted after 1"
    made.prepare_model(other, seed=2)
    assert plain[1][1].stream.tolist() != other[1][1].stream.tolist()
    fixed = parse("dropout(0.3, seed=1)", REGULARIZERS)
    assert fixed.prepare_model(plain, seed=9) == "dropout p=0.3 set in 1.1"
    untouched = nn.Linear(2, 1)
    assert parse("dropout(0)", REGULARIZERS).prepare_model(untouched) == (
        "dropout p=0 set in nothing"
    )
    with pytest.raises(ArgumentError, match="no place"):
        made.prepare_model(untouched)


@pytest.mark.parametrize(
    "text",
    [
        "dropout(1.5)", "dropout()", "label_smoothing(1)", "clip_norm(0)", "l1(-1)", "l2('a')",
        "early_stopping(patience=0)", "early_stopping(metric='valid/x')", "dropuot(0.1)",
        "clip_value(-1)", "dropout(0.1, seed=-1)",
    ],
)  # fmt: skip
def test_expressions_that_cannot_be(text):
    with pytest.raises(ExpressionError, match=r"\^"):
        parse(text, REGULARIZERS, kind="regularizer")
