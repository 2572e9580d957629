"""Powers: small whole exponents are products, also where a hyperparameter is the exponent."""

from __future__ import annotations

import pytest
import torch
from engine_agreement import agree, compiled

import ravine
from ravine.engine.equation import Equation
from ravine.engine.program import Program, Stage


def powers(w, g, *, a, n):
    return w**n, abs(w) ** (n - 1), abs(w) ** (a - 0.25)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, -1, 0.5, 2.0])
def test_powers_by_a_hyperparameter(n):
    w = torch.tensor([2.0, 0.5, 1.0, 3.0, 7.0]).double()
    tensors = {"w": w, "g": w}
    agree(powers, tensors, n=n)
    # Whole ones are products, to the bit.
    if n in (2, 3, 4):
        (found, *_) = compiled(Equation(powers), tensors, a=0.75, n=n)
        assert found.equal({2: w * w, 3: w * w * w, 4: (w * w) * (w * w)}[n])


def test_a_program_knows_that_the_exponent_decides():
    program = Program([Stage(Equation(powers), ("w", "g"), ("u", "v", "x"))])
    two, three, six, seven = (program.specialise({"a": 0.75, "n": n}) for n in (2, 3, 6, 7))
    assert two is not three
    assert six is seven  # a number that may change: no kernel of its own


def to_a_power(w, g, *, lr=1e-2, p=2, t):
    return w - lr * g**p / t**p


def test_an_exponent_changed_in_the_middle_of_a_run():
    w = torch.nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    w.grad = torch.tensor([3.0, 5.0], dtype=torch.float64)
    optimizer = ravine.update_rule(to_a_power)([w])
    expected = w.detach().clone()
    for t, p in enumerate([2, 2, 3, 1, 1.5, 0, 2], start=1):
        optimizer.param_groups[0]["p"] = p
        optimizer.step()
        expected -= 1e-2 * w.grad**p / t**p
        torch.testing.assert_close(w.detach(), expected, rtol=1e-14, atol=0)
