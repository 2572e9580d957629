"""Masks around the arguments of a branch: there for autograd, gone from the kernel."""

from __future__ import annotations

import ast
import math

import pytest
import torch
from engine_agreement import agree

from ravine.engine.equation import Equation
from ravine.engine.functions import exp, expm1, log, where
from ravine.engine.masks import unmasked


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ("where(c, f(where(c, x, 0)), g(x))", "where(c, f(x), g(x))"),
        ("where(c, f(x), g(where(c, 0, x)))", "where(c, f(x), g(x))"),
        ("where(c, where(d, where(c, x, 0), where(d, 1, y)), 0)", "where(c, where(d, x, y), 0)"),
        ("where(where(a, b, b) > 0, where(a, x, 0), 0)", None),  # of another condition
        ("where(c, x, 0) + where(c, 0, y)", None),  # beside each other
        ("where(c, 0, 1) * f(where(c, x, 0))", None),
        (
            "where(a < 0, f(where(0 > a, x, 0)), 1)",
            None,
        ),  # only the same words are known to be same
        ("where(f(where(c, x, 0)) > 0, x, y)", None),  # no condition holds in a condition
        ("f(where(x < number(0.0), -x, x))", "f(abs(x))"),
        ("where(g(x) > number(0.0), -g(x), g(x))", "-abs(g(x))"),
        (
            "where(x < number(0.0), where(x < number(0.0), -x, x), y)",
            "where(x < number(0.0), -x, y)",
        ),
        ("where(x < number(0.5), -x, x)", None),
        ("where(x < number(0.0), x, -x)", None),
        ("where(x > number(0.0), -y, x)", None),
        ("where(x <= number(0.0), -x, x)", None),
    ],
)
def test_only_what_the_same_condition_has_decided_is_removed(written, left):
    node = ast.parse(written, mode="eval").body
    assert ast.unparse(unmasked(node)) == (left or written)


def masked(w, g):
    near = abs(w) < 1
    far = where(near, 1.0, w)
    return where(near, expm1(where(near, w, 0.0)) - g, exp(w)), where(near, g, log(abs(far)))


def test_kernel_reference_and_python_agree():
    w = torch.tensor([-900.0, -0.5, 0.0, 0.5, 1.0, 900.0], dtype=torch.float64)
    agree(masked, {"w": w, "g": torch.ones_like(w)}, python=False)


def signed(w, g):
    return exp(where(w > 0, -w, w)) - g, where(w < 0, -w, w)


def test_a_choice_by_the_sign_is_a_size():
    w = torch.tensor([-torch.inf, -2.0, -0.0, 0.0, 3.0, torch.inf, torch.nan], dtype=torch.float64)
    agree(signed, {"w": w, "g": torch.zeros_like(w)}, python=False)


def test_the_mask_still_protects_autograd():
    w = torch.tensor([1000.0, 0.5], dtype=torch.float64, requires_grad=True)
    Equation(masked).reference(w, torch.zeros(2).double())[0].sum().backward()
    assert w.grad.tolist() == [torch.inf, pytest.approx(math.exp(0.5))]
