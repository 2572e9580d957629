"""Metrics: accuracy by every convention, and errors in the original units."""

from __future__ import annotations

import pytest
import torch

from ravine.errors import (
    ArgumentError,
    ShapeError,
)
from ravine.tasks import METRICS
from ravine.tasks.metrics import InOriginalUnits


def test_accuracy_takes_class_indices_in_any_number_of_dimensions():
    logits = torch.eye(3).expand(2, 3, 3)
    target = torch.tensor([[0, 1, 2], [0, 0, 2]])
    values = METRICS["accuracy"](logits, target)
    assert values.tolist() == [[1, 1, 1], [1, 0, 1]]


def test_accuracy_of_one_logit_is_the_same_for_both_conventions():
    logit, target = torch.tensor([[-2.0], [3.0], [1.0]]), torch.tensor([[0.0], [1.0], [0.0]])
    accuracy = METRICS["accuracy"]
    assert accuracy(logit, target).flatten().tolist() == [1, 1, 0]
    assert torch.equal(accuracy(logit, target), accuracy(logit, 2 * target - 1))


@pytest.mark.parametrize("name", METRICS)
def test_metrics_refuse_shapes_that_would_broadcast(name):
    with pytest.raises(ShapeError, match=r"\(4, 1\)"):
        METRICS[name](torch.zeros(4, 1), torch.zeros(4))
    with pytest.raises(ShapeError, match="output"):
        METRICS[name](torch.zeros(4, 3), torch.zeros(4, 1, dtype=torch.int64))


def test_metric_in_original_units_undoes_the_standardisation():
    target = torch.tensor([[100.0], [180.0]], dtype=torch.float64)
    guess = torch.tensor([[110.0], [160.0]], dtype=torch.float64)
    error = InOriginalUnits("squared_error", mean=150.0, scale=80.0)
    values = error((guess - 150) / 80, (target - 150) / 80)
    torch.testing.assert_close(values.flatten(), torch.tensor([100.0, 400.0]).double())
    with pytest.raises(ArgumentError, match="scale"):
        InOriginalUnits("squared_error", mean=0, scale=0)
