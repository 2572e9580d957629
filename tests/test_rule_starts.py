"""What a state starts as (a number, a hyperparameter, the weight), and a rule's own bounds."""

from __future__ import annotations

import pytest
import torch

import ravine
from ravine.errors import ArgumentError, EquationError

BACKENDS = ["cpu", "reference"]


@ravine.update_rule(initial={"s": "start", "z": "w", "n": 2.0})
def starting(w, g, s, z, n, *, lr, start=0.5):
    return w - lr * g * s * n - lr * (w - z), s + g, z, n * g


@ravine.update_rule(initial={"s": "lr"})
def starting_from_lr(w, g, s, *, lr):
    return w - s * g, s


@ravine.update_rule(bounds={"alpha": ("a number > 1", lambda x: x > 1)})
def wide_alpha(w, g, *, lr, alpha=2.0):
    return w - lr * alpha * g


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_states_start_as_the_rule_says_by_group(backend, dtype):
    ws = [torch.nn.Parameter(torch.linspace(-1, 1, 6).to(dtype)) for _ in range(2)]
    firsts = [w.detach().clone() for w in ws]
    groups = [{"params": ws[:1]}, {"params": ws[1:], "start": 4.0}]
    optimizer = starting(groups, lr=0.25, backend=backend)
    for w in ws:
        w.grad = torch.ones_like(w)
    optimizer.step()
    for w, first, start in zip(ws, firsts, (0.5, 4.0), strict=True):
        held = optimizer.state[w]
        wide = torch.float32 if dtype is torch.bfloat16 else dtype
        assert held["z"].dtype is wide
        assert torch.equal(held["z"], first.to(wide))
        assert held["z"].data_ptr() != w.data_ptr()
        assert torch.equal(held["s"], torch.full((6,), start + 1, dtype=wide))
        assert torch.equal(held["n"], torch.full((6,), 2.0, dtype=wide))
        assert torch.equal(w.detach(), (first.to(wide) - 0.25 * start * 2).to(dtype))


def test_a_state_that_starts_as_lr_has_the_lr_of_its_first_step():
    early, late = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = starting_from_lr([early, late], lr=ravine.schedules.linear(4, start=1.0, end=0.0))
    early.grad = torch.ones(1)
    optimizer.step()
    late.grad = torch.ones(1)
    optimizer.step()
    assert early.tolist() == [-2.0]
    assert late.tolist() == [-0.75]


def test_a_complex_state_starts_in_both_of_its_parts():
    w = torch.nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    w.grad = torch.ones(2, dtype=torch.complex64) * (1 + 2j)
    starting_from_lr([w], lr=0.5).step()
    assert w.tolist() == [-0.5 - 1j, -0.5 - 1j]


def test_a_state_that_cannot_start():
    with pytest.raises(EquationError) as caught:

        @ravine.update_rule(initial={"s": "lt"})
        def misspelt(w, g, s, *, t, lr):
            return w - lr * g * s, s

    assert str(caught.value) == (
        "update rule 'misspelt' cannot start the state 's'\n  got:      'lt'\n"
        "  expected: a number, 'w' for a copy of the weight, or a hyperparameter: lr"
    )


def test_a_rules_own_bound():
    w = torch.nn.Parameter(torch.zeros(1))
    wide_alpha([w], lr=0.1)
    with pytest.raises(ArgumentError) as caught:
        wide_alpha([w], lr=0.1, alpha=0.5)
    assert str(caught.value) == (
        "alpha has a value that cannot be used\n"
        "  where:    wide_alpha, group 0, option alpha\n"
        "  got:      0.5\n  expected: a number > 1"
    )


def test_a_bound_of_what_the_rule_does_not_take():
    with pytest.raises(EquationError) as caught:

        @ravine.update_rule(bounds={"alpha": ("anything", lambda _: True)})
        def without(w, g, *, lr):
            return w - lr * g

    assert str(caught.value) == (
        "update rule 'without' bounds alpha, which it does not take\n  expected: one of lr"
    )
