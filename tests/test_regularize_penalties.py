"""Penalties l1 and l2, and the soft threshold."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import ravine.optim
from ravine.errors import (
    ArgumentError,
    ArgumentTypeError,
)
from ravine.regularize import (
    l1,
    l2,
    soft_threshold_,
)


def test_values_and_gradients():
    w = torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64, requires_grad=True)
    v = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    a, b = l1([w, v], 0.5), l2([w, v], 0.5)
    assert (a.item(), b.item()) == (3.0, 7.0)
    assert torch.autograd.grad(a, w)[0].tolist() == [0.5, -0.5, 0.0]
    assert torch.autograd.grad(b, [w, v])[0].tolist() == [1.0, -2.0, 0.0]
    z = torch.tensor([3 + 4j], requires_grad=True)
    assert (l1(z, 1.0).item(), l2(z, 1.0).item()) == (5.0, 25.0)


def test_a_models_biases_and_norms_are_left_out():
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)).double()
    model[1].weight.data.fill_(100.0)
    weight = model[0].weight.detach()
    assert l1(model, 2.0).item() == pytest.approx(2 * float(weight.abs().sum()), rel=1e-15)
    assert l2(model, 2.0).item() == pytest.approx(2 * float((weight**2).sum()), rel=1e-15)
    assert l2(list(model.parameters()), 2.0).item() > 30_000


def test_half_weights_are_summed_in_float32():
    w = torch.full((3000,), 10.0, dtype=torch.float16)
    assert l2(w, 1.0).item() == 300_000.0
    assert l2(w, 1.0).dtype == torch.float32


def test_l2_in_the_loss_is_l2_of_our_optimizer():
    torch.manual_seed(0)
    a = nn.Parameter(torch.randn(5, dtype=torch.float64))
    b = nn.Parameter(a.detach().clone())
    theirs = torch.optim.Adam([a], lr=0.1)
    ours = ravine.optim.Adam([b], lr=0.1, l2=0.3, l1=0.2)
    for _ in range(5):
        theirs.zero_grad()
        ours.zero_grad()
        (a.cos().sum() + l2(a, 0.3) + l1(a, 0.2)).backward()
        b.cos().sum().backward()
        theirs.step()
        ours.step()
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_soft_threshold_is_our_optimizers_proximal_step():
    a = nn.Parameter(torch.tensor([0.05, -0.05, 2.0, -2.0, 0.1], dtype=torch.float64))
    b = nn.Parameter(a.detach().clone())
    soft_threshold_([a], 0.5, lr=0.2)
    b.grad = torch.zeros_like(b)
    ravine.optim.GradientDescent([b], lr=0.2, l1=0.5, l1_proximal=True).step()
    assert torch.equal(a, b)
    assert a.tolist()[:2] == [0.0, 0.0]
    assert math.copysign(1, a[1].item()) == 1


def test_penalties_refuse():
    with pytest.raises(ArgumentError, match="l1: strength"):
        l1(torch.ones(1), -1.0)
    with pytest.raises(ArgumentError, match=r"(?s)no weights.*give a list"):
        l2(iter([]), 1.0)
    with pytest.raises(ArgumentError, match="describe_groups"):
        l2(nn.ReLU(), 1.0)
    with pytest.raises(ArgumentTypeError, match=r"(?s)not a parameter.*named_parameters"):
        l2(nn.Linear(1, 1).named_parameters(), 1.0)
