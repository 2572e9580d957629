"""The numbers of a step: what is computed when options are read, and what at every step."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

import ravine
from ravine.engine.columns import COLUMNS
from ravine.engine.equation import Equation
from ravine.engine.functions import (
    HOST,
    maximum,
    minimum,
    sqrt,
    tensor_mean,
    tensor_norm,
    where,
)
from ravine.engine.host import Bound
from ravine.engine.program import Program, Stage

CONSTANT = 3.0


def specialised(*functions, **values):
    stages = [Stage(e, e.tensors, ("w",)) for e in map(Equation, functions)]
    return Program(stages).specialise(values)


def decaying(w, *, t, lr, beta=0.9):
    rate = lr / (1 - beta**t)
    lr = lr * beta  # before the step
    rate = rate + lr
    lr = lr * t  # and a second time, at the step
    return w - rate * w - lr * w


def constant_changed(w, *, t, lr, eps=0.5):
    scale = CONSTANT * eps
    scale = where(scale > t, scale * t, CONSTANT)
    return w * scale + lr


def test_numbers_that_change_places_are_those_of_the_equation():
    values = {"lr": 0.25, "beta": 0.75, "eps": 0.5}
    found = specialised(decaying, constant_changed, **values)
    at = found.scalars.bind(values)
    for t in (1.0, 2.0, 7.0):
        late = at({"t": t, "norm": math.nan, "grad_scale": 1.0})
        rate, lr = 0.25 / (1 - 0.75**t) + 0.25 * 0.75, 0.25 * 0.75 * t
        scale = 1.5 * t if t < 1.5 else 3.0
        assert sorted(late) == sorted((rate, lr, scale, 0.25))
        assert late == found.scalars({**values, "t": t})


def test_what_does_not_depend_on_the_step_is_one_tuple():
    def plain(w, *, lr, decay=0.5):
        return w * (1 - lr * decay)

    values = {"lr": 0.25, "decay": 0.5}
    at = specialised(plain, **values).scalars.bind(values)
    assert at({"t": 1.0}) is at({"t": 2.0})
    assert at({}) == (0.875,)


def quotient(w, *, t, lr, a=1.0):
    return w * (lr / (t - a)) + w * a**t + w * (a * 2) ** (-t) + w * sqrt(a / t)


@pytest.mark.parametrize("a", [1.0, 0.0, -0.5, -2.0, 1e200, math.inf, math.nan, -0.0, 2, True])
@pytest.mark.parametrize("t", [1.0, 0.0, 0.5, 3.0, 1e6, math.inf])
@pytest.mark.parametrize("lr", [0.5, 0.0, -1.0, math.inf])
def test_the_edges_of_arithmetic_are_those_of_tensors(a, t, lr):
    values = {"lr": lr, "a": a, "t": t}
    found = specialised(quotient, **values).scalars(values)
    divide, raise_to = HOST["divide"], HOST["raise_to"]
    root = HOST["sqrt"](divide(a, t))
    expected = [divide(lr, t - a), raise_to(a, t), raise_to(a * 2, -t), root]
    wide = [torch.tensor(x, dtype=torch.float64) for x in (found, expected)]
    torch.testing.assert_close(*wide, rtol=0, atol=0, equal_nan=True)


def test_options_are_read_again_only_where_they_may_have_changed():
    values = {"lr": 0.25, "beta": 0.75}
    bound = Bound(specialised(decaying, **values).scalars)
    first = bound.at(values)
    assert bound.at(values) is first
    assert bound.at({**values}) is not first  # another group
    values["lr"] = 0.5
    assert bound.at(values)({"t": 1.0}) == bound.at({**values})({"t": 1.0})
    assert bound.at(values) is not first
    values["lr"] = rate = torch.tensor(0.5, dtype=torch.float64)  # equal, and can change
    before = bound.at(values)({"t": 2.0})
    rate.fill_(0.125)
    after = bound.at(values)({"t": 2.0})
    assert before != after == bound.at({"lr": 0.125, "beta": 0.75})({"t": 2.0})


@ravine.update_rule
def between(w, g, *, t, lr, bounds=(0.0, 1.0)):
    low, high = bounds
    return w - lr * maximum(low, high) * g


def test_a_list_changed_in_place_counts_at_the_next_step():
    w = torch.nn.Parameter(torch.ones(2))
    optimizer = between([w], lr=1.0, bounds=[0.0, 1.0])
    for most in (1.0, 2.0, 3.0):
        optimizer.param_groups[0]["bounds"][1] = most
        before = w.detach().clone()
        w.grad = torch.ones(2)
        optimizer.step()
        assert (before - w.detach()).tolist() == [most] * 2


EDGES = [0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 1e-300, 1e300, -1e300, math.inf, -math.inf, math.nan]


@pytest.mark.parametrize("name", sorted(COLUMNS))
def test_functions_of_columns_are_those_of_numbers(name):
    function, on_columns = HOST[name], COLUMNS[name]
    assert COLUMNS.keys() == HOST.keys()
    count = {"where": 3, "maximum": 2, "minimum": 2, "divide": 2, "raise_to": 2}.get(name, 1)
    rows = [row for row in itertools.product(EDGES, repeat=count) if not _overflows(name, row)]
    if name == "where":
        rows = [(row[0] > 0, *row[1:]) for row in rows]
    with np.errstate(all="raise"):
        found = on_columns(*map(np.array, zip(*rows, strict=True)))
    expected = [function(*row) for row in rows]
    np.testing.assert_allclose(found, expected, rtol=1e-15, atol=0)
    for row in rows[:20]:  # and a number with a column, and numbers alone
        mixed = on_columns(np.array([row[0]]), *row[1:])
        np.testing.assert_allclose(mixed, [function(*row)], rtol=1e-15, atol=0)
        np.testing.assert_equal(on_columns(*row), function(*row))


def _overflows(name, row):
    """Whether ours says infinity where IEEE has minus infinity: a negative number to a large power."""
    return name == "raise_to" and row[0] < -1 and math.isfinite(row[0]) and abs(row[1]) > 1


def of_tensors(w, g, *, t, lr, scale=2.0, flag=True):
    size, mean = tensor_norm(w), tensor_mean(g)
    ratio = where((size > 1) & (mean > 0), size / mean, scale)
    return w - lr * ratio * minimum(size, t) * g


def of_tensors_by_branches(w, g, *, t, lr, scale=2.0, flag=True):
    size, mean = tensor_norm(w), tensor_mean(g)
    ratio = size / mean if (size > 1 and mean > 0) else scale
    return w - lr * ratio * minimum(size, t) * g


@pytest.mark.parametrize("equation", [of_tensors, of_tensors_by_branches])
def test_a_table_has_the_numbers_of_each_tensor(equation):
    options = {"lr": 0.25, "scale": 2.0, "flag": True}
    found = specialised(equation, **options)
    first, second = (total.name for sweep in found.sweeps for total in sweep.totals)
    columns = {first: np.array([0.5, 2.0, 3.0, np.nan]), second: np.array([1.0, 0.5, 0.0, 1.0])}
    table = found.scalars.table(options, {"t": 2.5}, columns, 4)
    for row, size, mean in zip(table, columns[first], columns[second], strict=True):
        values = {**options, "t": 2.5, first: float(size), second: float(mean)}
        np.testing.assert_array_equal(row, found.scalars(values))
