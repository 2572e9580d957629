"""What an equation may be written with: the compiled kernel against Python floats."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from engine_agreement import HYPERPARAMETERS, agree, called, compiled, referenced, two

from ravine.engine.equation import Equation
from ravine.engine.functions import (
    FUNCTIONS,
    exp,
    log,
    log1p,
    maximum,
    minimum,
    sigmoid,
    sign,
    sqrt,
    tanh,
    where,
)
from ravine.engine.program import Program, Stage
from ravine.errors import EquationError

HALF = 0.5
COUNT = 3
LIMIT = math.inf
ROOT = np.float64(1.25)
SMALL = np.float32(0.25)
COUNTED = np.int64(2)


def arithmetic(w, g, *, t, lr, a, pair):
    """A docstring, and every operator, literal and kind of number."""
    b1, b2 = pair
    u = w
    u += lr * g
    u *= 2
    u -= 1e-3
    u /= 7
    v: float = -w + +g
    d, e = w, g
    d, e = e + 1, d - 1
    k = a
    k += 1
    k **= 2
    pass
    return (
        u, v, d, e,
        w + g - w * g / 3 + 1_000_003 * w,
        w**2, w**3, w**4, w**2.0, (abs(w) + 1) ** 0.5, (abs(w) + 1) ** 3.7, (abs(w) + 1) ** -1,
        w**0, w**1, (abs(w) + 1) ** a, (abs(w) + 0.5) ** g, w**-2,
        b1**t * w, (1 - b2**t) * g, pair[0] * w + pair[1], k * g,
        HALF * w, COUNT * g, ROOT * w, w**COUNTED, w / ROOT,
        w * math.pi, g * math.e, minimum(w, LIMIT), maximum(w, -math.inf),
        w * (2 if a > 0.5 else 3), (w if a > 0.5 else g), 0.0 * w + 5, lr + 0 * w,
    )  # fmt: skip


def test_arithmetic():
    agree(arithmetic, two())


def numpy_numbers(w, g):
    return SMALL * g, w**COUNTED, w / ROOT, where(w > SMALL, w, g)


def test_numpy_numbers_of_the_module():
    # NumPy itself would compute in float32 with the first of them.
    agree(numpy_numbers, two(), python=False)


def functions(w, g, *, lr, t):
    p = abs(w) + 0.01
    return (
        sqrt(p), exp(w), log(p), log1p(p), tanh(w), sigmoid(w), sign(w), abs(g),
        maximum(w, g), minimum(w, 0.5), max(w, 0), min(1, g), where(w > g, w, g),
        math.sqrt(p) * 2, math.exp(g), math.log(p), math.tanh(g), math.fabs(w), math.expm1(w),
        math.sqrt(lr) * w, math.log(t) * g, abs(lr - 1) * w, max(lr, t) * g, min(lr, 0) - w,
        where(t > 2, w, g), where(t == 1, w, g), where(t > 2, 2, 3) * w,
    )  # fmt: skip


def test_functions():
    agree(functions, two())


def spellings(w, g, *, lr):
    p = abs(w) + 0.01
    return (
        torch.sqrt(p), np.sqrt(p), torch.exp(w), np.exp(w), torch.log(p), np.log1p(p),
        torch.sign(w), np.sign(g), torch.abs(w), np.abs(w), torch.maximum(w, g), np.minimum(w, g),
        torch.where(w > g, w, g), np.where(w > g, g, w), torch.clamp_min(w, 0.5),
        torch.clamp_max(w, 0.5), torch.sigmoid(w), np.tanh(g),
    )  # fmt: skip


def test_the_names_of_torch_and_numpy_mean_the_same():
    agree(spellings, two(), python=False)


def conditions(w, g, *, t, lr, a):
    return (
        where((w > 0) & (g > 0), w, g),
        where((w > 0) | (g <= 0), w, g),
        where(~(w < g), w, g),
        where(~((w >= 0) | (g != 0)), w, 1.0),
        where((t == 3) & (g > 0), w, g),
        where((g > 0) | (a > 1), w, g),
        where(t % 2 == 0, w, g),
        where(w == w, 1.0, 0.1),
        (g > 0) * 1.0 - (g < 0) * 1.0,
        where(w > 0, where(g > 0, 1, 2), where(g > 0, 3, 4)) * w,
    )


def test_conditions():
    # ~True is -2 in Python: the reference is the oracle here.
    agree(conditions, two(), python=False)


def turned(w, g, *, t, lr, a, flag):
    if ~(a > 1):
        g = g + 1
    return (
        where(~(t > 2), w, g), where(~(t < 2), w, g), where(~flag, w, g), where(~~flag, w, g),
        where(~(t == 3) | ~(g > 0), w, g), where(~(a > 1) & (w > g), w, g),
        (~flag) * g, (w if ~(a > 1) else g), where(~(w < g), w, g),
    )  # fmt: skip


def written_out(w, g, *, t, lr, a, flag):
    if a <= 1:
        g = g + 1
    return (
        where(t <= 2, w, g), where(t >= 2, w, g), where(not flag, w, g), where(flag, w, g),
        where((t != 3) | (g <= 0), w, g), where((a <= 1) & (w > g), w, g),
        (not flag) * g, (w if a <= 1 else g), where(w >= g, w, g),
    )  # fmt: skip


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("a", [0.75, 1.5])
def test_a_condition_on_numbers_is_turned_round_as_one_on_tensors(flag, a):
    # Of Python's own True, ~ makes -2, which is true.
    equation, values = Equation(turned), {**HYPERPARAMETERS, "a": a, "flag": flag}
    expected = called(Equation(written_out), two(), **values)
    for found in (compiled(equation, two(), **values), referenced(equation, two(), **values)):
        for got, want in zip(found, expected, strict=True):
            assert torch.equal(got, want)


def test_a_condition_is_not_turned_round_where_the_source_is_not_known():
    scope = {"where": where}
    exec("def unseen(w, g, *, t, lr): return where(~(t > 2), w, g)", scope)
    with pytest.raises(EquationError) as caught:
        Equation(scope["unseen"])
    assert str(caught.value) == (
        "equation 'unseen' has a ~, which is another thing on Python's own numbers\n"
        "  expected: a function whose source is available, in which that can be put right\n"
        "  do:       write it into a file, or turn the comparison round"
    )


def early(w, g, *, lr, a, flag):
    scale = 1.0
    if a > 1:
        scale = 2.0
    elif a > 0.5:
        scale = a
        if not flag and scale < 1:
            g = g * 3
    else:
        return g, w
    if flag:
        return w + g, w
    if scale == 2.0:
        return w, g
    return w - scale * g, w * scale


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("a", [0.25, 0.75, 1.5])
def test_branches_and_early_returns_on_hyperparameters(a, flag):
    agree(early, two(), a=a, flag=flag)


def through_assignments(w, g, *, lr, a):
    total = 0.0
    total += a
    c: float = total
    d = c * 2
    if d > 1:
        return w - lr * g
    return w + lr * g


def test_an_if_follows_hyperparameters_through_every_kind_of_assignment():
    equation = Equation(through_assignments)
    program = Program([Stage(equation, ("w", "g"), ("w",))])
    assert program.decisive == ("a",)
    assert program.specialise({"a": 1.0}) is not program.specialise({"a": 0.1})
    assert program.specialise({"a": 1.0}) is program.specialise({"a": 2.0}), "decided alike"
    agree(through_assignments, two(), a=0.75)
    agree(through_assignments, two(), a=0.1)


def closed_over(factor):
    def inner(w, g, *, lr):
        return w - factor * lr * g

    return inner


def test_numbers_of_an_enclosing_function():
    agree(closed_over(2.5), two())
    agree(closed_over(3), two())


def nan_ways(w, g):
    return (
        maximum(w, g), maximum(g, w), minimum(w, g), minimum(g, w), max(w, 0), min(0, w),
        where(w > 0, w, g), where(w != w, 1.0, g), sign(w), abs(w), w * g, w + g, w / g,
        sqrt(w), log(w), exp(w), tanh(w), sigmoid(w), log1p(w), w**2,
    )  # fmt: skip


def test_nan_and_infinity_take_the_same_way_as_in_torch():
    special = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 1e308, 5e-324]
    w, g = torch.cartesian_prod(*[torch.tensor(special, dtype=torch.float64)] * 2).unbind(1)
    agree(nan_ways, {"w": w.contiguous(), "g": g.contiguous()}, python=False)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions_on_python_numbers_equal_those_on_tensors(name):
    special = [math.nan, math.inf, -math.inf, 0.0, 1.0, -1.0, 0.3, -2.5, 800.0, -800.0]
    function = FUNCTIONS[name]
    for x in special:
        arguments = {"where": (x > 0, x, 1.0), "maximum": (x, 0.5), "minimum": (0.5, x)}.get(
            name, (x,)
        )
        tensors = [
            torch.tensor(a, dtype=torch.bool if isinstance(a, bool) else torch.float64)
            for a in arguments
        ]
        got = torch.tensor(float(function(*arguments)), dtype=torch.float64)
        torch.testing.assert_close(got, function(*tensors), equal_nan=True, rtol=1e-14, atol=1e-300)
