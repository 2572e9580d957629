"""Mixup and CutMix: where every row, pixel and probability came from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training_cases import points, task

import ravine
from ravine.errors import ArgumentTypeError, ShapeError, TargetError
from ravine.regularize import REGULARIZERS


def images(rows: int = 24) -> tuple[Tensor, Tensor]:
    """Images of one value each, so that a mixture shows where every pixel came from."""
    X = torch.arange(rows, dtype=torch.float64)[:, None, None, None].expand(rows, 2, 7, 5)
    return X.clone(), torch.arange(rows) % 3


def mixing(name: str, alpha: float, model: nn.Module) -> Any:
    part = REGULARIZERS[name](alpha).part(seed=3)
    part.begin(model)
    return part


class Flat(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.head = nn.Linear(size, 3).double()

    def forward(self, X: Tensor) -> Tensor:
        return self.head(X.flatten(1))


def test_mixup_mixes_rows_and_classes_by_the_same_share() -> None:
    X, y = images()
    part = mixing("mixup", 0.7, Flat(70))
    shares = set()
    for step in range(1, 9):
        inputs, targets = part.batch((X, y), step)
        own, probabilities = inputs[:, 0, 0, 0], F.one_hot(y, 3).double()
        # x_i = s i + (1 - s) j: the order j follows from any row and the share.
        moved = (inputs - X)[:, 0, 0, 0]
        (share,) = {
            round(float(s), 9)
            for s in [
                (targets[row] - probabilities[row]).abs().max()
                for row in range(len(y))
                if bool((targets[row] != probabilities[row]).any())
            ]
        }
        share = 1 - share
        shares.add(share)
        order = torch.round((own - share * X[:, 0, 0, 0]) / (1 - share)).long()
        assert sorted(order.tolist()) == list(range(24))
        assert torch.allclose(moved, (1 - share) * (X[order] - X)[:, 0, 0, 0], atol=1e-6)
        expected = share * probabilities + (1 - share) * probabilities[order]
        assert torch.allclose(targets, expected, atol=1e-8)
        assert torch.allclose(targets.sum(1), torch.ones(24, dtype=torch.float64))
    assert len(shares) == 8


def test_the_shares_of_mixup_are_beta() -> None:
    part = mixing("mixup", 0.5, nn.Linear(1, 1))
    X = torch.tensor([[0.0], [1.0]])
    found = []
    for step in range(1, 4001):
        inputs, _ = part.batch((X, X.clone()), step)
        if inputs[0, 0] != 0:  # the order was not that of the batch
            found.append(1 - float(inputs[0, 0]))
    values = torch.tensor(found)
    assert abs(values.mean() - 0.5) < 0.03
    assert abs(values.var() - 1 / 8) < 0.01  # of Beta(1/2, 1/2)


def test_numbers_are_mixed_as_numbers() -> None:
    X = torch.arange(8.0)[:, None]
    inputs, targets = mixing("mixup", 1.0, nn.Linear(1, 1)).batch((X, 3 * X), 1)
    assert torch.allclose(targets, 3 * inputs)
    assert not torch.equal(inputs, X)


def test_cutmix_weighs_by_the_pixels_that_stayed() -> None:
    X, y = images()
    part = mixing("cutmix", 1.0, Flat(70))
    areas = set()
    for step in range(1, 30):
        inputs, targets = part.batch((X, y), step)
        stayed = inputs == X
        for row in range(24):
            values = inputs[row].unique()
            assert len(values) <= 2
            other = [int(value) for value in values if value != row]
            area = float(stayed[row].double().mean())
            expected = area * F.one_hot(y[row], 3).double()
            if other:
                expected = expected + (1 - area) * F.one_hot(y[other[0]], 3).double()
                rows, columns = (~stayed[row, 0]).nonzero(as_tuple=True)
                cut = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
                assert int(cut) == int((~stayed[row, 0]).sum())  # a rectangle, in every channel
                assert torch.equal(stayed[row, 0], stayed[row, 1])
                areas.add(round(area, 6))
                assert torch.allclose(targets[row], expected)
    assert len(areas) > 5


@pytest.mark.parametrize(
    ("name", "batch", "error", "words"),
    [
        (
            "mixup",
            (torch.zeros(4, 3, dtype=torch.long), torch.zeros(4)),
            ArgumentTypeError,
            "int64",
        ),
        ("cutmix", (torch.zeros(4, 70), torch.zeros(4)), ShapeError, "cutmix takes images"),
        (
            "mixup",
            (torch.zeros(4, 70).double(), torch.tensor([0, 1, -100, 2])),
            TargetError,
            "-100",
        ),
        ("mixup", (torch.zeros(4, 70).double(), torch.zeros(4, 1).long()), ShapeError, "(2, 3)"),
    ],
    ids=["tokens", "flat images", "ignored targets", "no classes"],
)
def test_what_cannot_be_mixed_is_refused(
    name: str, batch: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        mixing(name, 1.0, Flat(70)).batch(batch, 1)
    assert words in str(caught.value)


def test_points_stay_the_same() -> None:
    """Mixing never writes into the data."""
    X, y = points()
    kept = X.clone()
    ravine.train(task(train=(X, y)), batch_size="all", epochs=1, regularize="mixup(1.0)")
    assert torch.equal(X, kept)
