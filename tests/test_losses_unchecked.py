"""check="off": right values give the same bits, wrong ones never an error nor a touch of other memory."""

from __future__ import annotations

import math

import pytest
import torch
from loss_table import ROWS
from test_losses_numbers import EACH, leaf, loss_of

from ravine import losses
from ravine.errors import ArgumentError, ShapeError, TargetError

WITH_DOMAIN = [row for row in ROWS if row.unusable]
BY_CLASS = [row for row in ROWS if row.rows and row.extra.get("kind") != "soft"]


@EACH
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_right_values_give_the_same_bits(row, reduction):
    x, y = row.samples((6,), torch.float32)
    weight = torch.rand(6)
    found = []
    for check in ("on", "off"):
        z = leaf(x)
        loss = loss_of(row, z, y, weight=weight, reduction=reduction, check=check)
        loss.sum().backward()
        found.append((loss.detach(), z.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


@EACH
def test_shapes_and_types_are_checked_all_the_same(row):
    x, y = row.samples((6,), torch.float32)
    with pytest.raises(ShapeError):
        loss_of(row, x, y[:4], check="off")


@pytest.mark.parametrize("row", WITH_DOMAIN, ids=str)
def test_a_target_outside_of_the_domain_is_what_the_equation_makes_of_it(row):
    x, y = row.samples((6,), torch.float32)
    y[2] = row.unusable[0]
    with pytest.raises(TargetError):
        loss_of(row, x, y)
    z = leaf(x)
    loss = loss_of(row, z, y, reduction="none", check="off")
    loss.sum().backward()
    apart = torch.arange(6) != 2
    exact = loss_of(row, x[apart], y[apart], reduction="none")
    assert torch.equal(loss[apart], exact)


@EACH
def test_a_weight_that_is_nan_spreads(row):
    x, y = row.samples((3,), torch.float32)
    weight = torch.tensor([1.0, math.nan, 1.0])
    with pytest.raises(ArgumentError, match="sample weights must be finite"):
        loss_of(row, x, y, weight=weight)
    loss = loss_of(row, x, y, weight=weight, reduction="none", check="off")
    assert loss.isnan().tolist() == [False, True, False]
    assert loss_of(row, x, y, weight=weight, check="off").isnan()


@pytest.mark.parametrize("row", BY_CLASS, ids=str)
@pytest.mark.parametrize("wrong", [-1, 5, 1 << 40, -(1 << 40)])
@pytest.mark.parametrize("way", ["kernel", "reference", "compile"])
def test_a_class_out_of_range_makes_its_row_nan(row, wrong, way):  # numerics 10
    x, y = row.samples((4,), torch.float32)
    exact = loss_of(row, x, y, reduction="none")
    y[1] = wrong

    def call(z, reduction):
        weight = torch.ones(4, requires_grad=way == "reference")
        return loss_of(row, z, y, weight=weight, reduction=reduction, check="off")

    if way == "compile":
        call = torch.compile(call, backend="eager")
    for reduction in ("none", "mean", "sum"):
        z = leaf(x)
        loss = call(z, reduction)
        loss.sum().backward()
        if row.loss == "cross_entropy":  # a hinge has no slope beyond its margin
            assert z.grad[1].isnan().all()
        if reduction == "none":
            assert loss.isnan().tolist() == [False, True, False, False]
            torch.testing.assert_close(loss[[0, 2, 3]], exact[[0, 2, 3]])
            assert z.grad[[0, 2, 3]].isfinite().all()
        else:
            assert loss.isnan()


@pytest.mark.parametrize("rows", [3, 5000])
def test_no_memory_outside_is_written(rows):
    memory = torch.full((rows + 2, 9), 7.0)
    y = torch.randint(9, (rows,))
    y[0], y[-1] = -9, 1 << 20
    x = memory[1:-1].clone().requires_grad_()
    losses.cross_entropy(x, y, check="off").backward()
    losses.hinge(x, y, check="off").backward()
    assert (memory == 7).all()


@pytest.mark.parametrize("plain", [False, True])
def test_linear_cross_entropy(plain):
    hidden, head = torch.randn(6, 4), torch.randn(9, 4)
    y = torch.tensor([1, 8, -100, 9, -7, 0])
    weight = torch.ones(6, requires_grad=plain)
    found = {}
    for reduction in ("none", "mean"):
        x = leaf(hidden)
        found[reduction] = losses.linear_cross_entropy(
            x, head, y, sample_weight=weight, reduction=reduction, check="off"
        )
        found[reduction].sum().backward()
        assert x.grad[3:5].isnan().all()
    exact = losses.cross_entropy(hidden @ head.T, y, reduction="none", check="off")
    torch.testing.assert_close(found["none"], exact, equal_nan=True)
    assert exact.isnan().tolist() == [False, False, False, True, True, False]
    assert found["mean"].isnan()
    module = losses.LinearCrossEntropy(check="off")
    assert repr(module) == "linear_cross_entropy(check='off')"
    assert module(hidden, head, y).isnan()


def test_another_word_is_an_error():
    with pytest.raises(ArgumentError) as caught:
        losses.mse(torch.zeros(2), torch.zeros(2), check="no")
    assert str(caught.value) == (
        "mse: check has a value that cannot be used\n  got:      'no'\n  expected: 'on' or 'off'"
    )
    with pytest.raises(ArgumentError, match="check has a value"):
        losses.cross_entropy(torch.zeros(2, 3), torch.zeros(2).long(), check=False)


def test_modules_take_it_and_show_it():
    module = losses.CrossEntropy(check="off")
    assert repr(module) == "cross_entropy(check='off')"
    assert module(torch.zeros(2, 3), torch.tensor([0, 9])).isnan()
    with pytest.raises(ArgumentError, match="check has a value"):
        losses.MSE(check="nein")
