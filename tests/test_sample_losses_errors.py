"""What losses of samples and of classes refuse, and the words they do it with."""

from __future__ import annotations

import math

import pytest
import torch

from ravine import losses
from ravine.errors import (
    ArgumentError,
    ArgumentTypeError,
    ShapeError,
    TargetError,
    UnknownOptionError,
)


def message(error, call, *arguments, **options):
    with pytest.raises(error) as caught:
        call(*arguments, **options)
    return str(caught.value)


def test_shapes():  # numerics 9
    a = torch.zeros(3, 4)
    assert message(ShapeError, losses.triplet, a, a[:1], a) == (
        "triplet: anchor and positive differ in shape\n"
        "  got:      anchor (3, 4), positive (1, 4)\n"
        "  expected: the same shape; nothing is broadcast"
    )
    assert message(ArgumentTypeError, losses.triplet, a, a) == (
        "triplet: takes 3 tensors\n  got:      2\n  expected: anchor, positive, negative"
    )
    assert "there are no vectors" in message(ShapeError, losses.info_nce, a[:, :0], a[:, :0])
    assert "(N, D)" in message(ShapeError, losses.nt_xent, a[None], a[None])
    text = message(ShapeError, losses.contrastive, a, a, torch.zeros(3, 1))
    assert "pairs (3,), target (3, 1)" in text
    x = torch.zeros(2, 3, 5)
    text = message(ShapeError, losses.dice, x, torch.zeros(2, 5).long())
    assert "for integer classes say which dimension of the input they are: dim=1" in text
    text = message(ShapeError, losses.dice, x, torch.zeros(2, 3).long(), dim=1)
    assert "expected: a target (2, 5); the classes are dimension 1 of the input" in text
    for dim in (0, 3, -3):
        text = message(ShapeError, losses.dice, x, torch.zeros(2, 5).long(), dim=dim)
        assert text.startswith(f"dice: there is no dimension {dim} for the classes")
    message(ArgumentTypeError, losses.triplet, a.long(), a, a)
    text = message(ShapeError, losses.dice, x, x, weight=torch.ones(3))
    assert "the sample weights do not fit" in text
    assert "on different devices" in message(ArgumentError, losses.info_nce, a, a.to("meta"))


def test_targets():  # numerics 10
    a = torch.zeros(2, 4)
    assert message(TargetError, losses.contrastive, a, a, torch.tensor([1, -1])) == (
        "contrastive: a target is outside of what the loss is defined for\n"
        "  where:    target[1]\n  got:      -1\n"
        "  expected: 0 for a similar pair, 1 for a dissimilar one"
    )
    y = torch.zeros(2, 4)
    y[1, 2] = 1.5
    assert "where:    target[1, 2]\n  got:      1.5" in message(TargetError, losses.dice, a, y)
    x = torch.zeros(2, 3, 4)
    text = message(TargetError, losses.tversky, x, (y * 2).long(), dim=1)
    assert text.startswith("tversky: a target is not one of the classes\n  where:    row 6 of 8")


@pytest.mark.parametrize(
    ("name", "option", "bad"),
    [
        ("triplet", "margin", 0.0),
        ("triplet", "p", 0.5),
        ("triplet", "eps", -1e-6),
        ("triplet", "swap", 1),
        ("contrastive", "margin", -1.0),
        ("dice", "smooth", -1.0),
        ("dice", "dim", 1.5),
        ("dice", "ignore_index", 2**63),
        ("tversky", "alpha", math.nan),
        ("tversky", "beta", -0.1),
        ("tversky", "gamma", 0),
        ("info_nce", "symmetric", "yes"),
        ("categorical_focal", "gamma", -0.5),
        ("poly", "epsilon", -1.5),
        ("multi_margin", "p", 3),
        ("multi_margin", "margin", math.inf),
        ("poly", "dim", None),
    ],
)
def test_options_out_of_bounds(name, option, bad):
    text = message(ArgumentError, losses.LOSSES[name], **{option: bad})
    assert text.startswith(f"{name}: {option} has a value that cannot be used\n  got:      {bad!r}")
    text = message(UnknownOptionError, losses.LOSSES[name], **{option + "x": 1})
    assert f"did you mean {option!r}?" in text


def test_class_numbers_and_soft_targets_of_row_losses():
    x, y = torch.zeros(2, 3), torch.tensor([0, 3])
    assert message(ShapeError, losses.categorical_focal, x, y, alpha=[1.0, 2.0]) == (
        "categorical_focal: alpha does not fit the classes\n"
        "  got:      (2,)\n  expected: (3,), one for each class"
    )
    text = message(ArgumentError, losses.poly, x, y, class_weight=[1.0, -1.0, 0.0])
    assert "class_weight must be finite and >= 0\n  where:    class 1\n  got:      -1.0" in text
    text = message(ArgumentError, losses.dice, x[None], y[None], dim=2, class_weight=[0.0] * 3)
    assert text == "dice: class_weight is 0 for every class"
    for name in ("categorical_focal", "poly", "multi_margin"):
        text = message(ArgumentTypeError, losses.FUNCTIONS[name], x, x)
        assert text.startswith(f"{name}: targets are classes")
        text = message(TargetError, losses.FUNCTIONS[name], x, y)
        assert text.startswith(
            f"{name}: a target is not one of the classes\n  where:    row 1 of 2"
        )
