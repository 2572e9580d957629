"""Output, loss and targets beside each other: every pair that fits, and pairs that do not."""

from __future__ import annotations

import pytest
from faulty_programs import clusters, evidence_of, line, names, net, program
from torch import nn
from torch.nn import functional as F

from ravine import diagnose
from ravine.diagnose.checks.head import head_checks
from ravine.diagnose.probes.head import head

CLASSES = clusters(120)
TWO = (clusters(120, classes=2)[0], clusters(120, classes=2)[1].float()[:, None])
NUMBERS = line(120)


def soft():
    return nn.Softmax(-1)


def task_of(data, width, last, loss):
    return program(
        data, lambda: net(data[0].shape[1], 8, width, head=last() if last else None), loss
    )


@pytest.mark.parametrize(
    ("data", "width", "last", "loss"),
    [
        (CLASSES, 3, None, "cross_entropy"),
        (CLASSES, 3, partial_log_softmax := (lambda: nn.LogSoftmax(-1)), F.nll_loss),
        (CLASSES, 3, partial_log_softmax, "cross_entropy"),  # a second one changes nothing
        (TWO, 1, None, "binary_cross_entropy"),
        (TWO, 1, nn.Sigmoid, nn.BCELoss()),
        (TWO, 1, nn.Sigmoid, "mse"),
        (NUMBERS, 1, None, "mse"),
        ((NUMBERS[0], NUMBERS[1].sigmoid()), 1, nn.Sigmoid, "mse"),
        ((NUMBERS[0], NUMBERS[1].tanh()), 1, nn.Tanh, "mae"),
        ((NUMBERS[0], NUMBERS[1].exp()), 1, nn.ReLU, "mse"),
    ],
    ids=[
        "logits", "log-softmax", "log-softmax-ce", "binary-logits", "probabilities", "brier",
        "numbers", "shares", "between", "positive",
    ],
)  # fmt: skip
def test_what_fits_is_not_suspected(data, width, last, loss):
    assert names(head_checks(evidence_of(task_of(data, width, last, loss)))) == []


@pytest.mark.parametrize(
    ("data", "width", "last", "loss", "expected"),
    [
        (CLASSES, 3, soft, nn.CrossEntropyLoss(), "double-softmax"),
        (CLASSES, 3, nn.Sigmoid, "cross_entropy", "wrong-output-activation"),
        (CLASSES, 3, nn.ReLU, "cross_entropy", "wrong-output-activation"),
        (TWO, 1, soft, nn.BCELoss(), "wrong-output-activation"),
        (TWO, 1, nn.Sigmoid, nn.BCEWithLogitsLoss(), "wrong-output-activation"),
        (NUMBERS, 1, nn.Tanh, "mse", "wrong-output-activation"),
        (NUMBERS, 1, nn.Sigmoid, "huber", "wrong-output-activation"),
        (NUMBERS, 1, nn.ReLU, "mse", "wrong-output-activation"),
        (NUMBERS, 1, soft, "mse", "wrong-output-activation"),
    ],
    ids=["softmax", "sigmoid-ce", "relu-ce", "softmax-1", "sigmoid-twice", "tanh", "sigmoid",
         "relu", "softmax-1-mse"],
)  # fmt: skip
def test_what_does_not_fit(data, width, last, loss, expected):
    found = list(head_checks(evidence_of(task_of(data, width, last, loss))))
    assert names(found) == [expected] and found[0].certain


@pytest.mark.parametrize(
    ("last", "expected"),
    [(None, "free"), (nn.Sigmoid, "sigmoid"), (nn.Tanh, "tanh"), (nn.ReLU, "relu")],
    ids=["free", "sigmoid", "tanh", "relu"],
)
def test_the_range_of_an_output(last, expected):
    assert evidence_of(task_of(NUMBERS, 1, last, "mse")).probe(head).range == expected


def test_a_softmax_over_one_number_is_mended_by_a_sigmoid():
    found = diagnose(task_of(TWO, 1, soft, nn.BCELoss()), budget=90).findings[0]
    assert found.name == "wrong-output-activation"
    assert found.treatments[0].helped and "sigmoid" in found.treatments[0].remedy
