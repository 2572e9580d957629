"""Clipping of gradients by norm and by value."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from ravine.errors import (
    ArgumentError,
    NonFiniteError,
)
from ravine.regularize import (
    clip_norm_,
    clip_value_,
)


def with_gradients(dtype: torch.dtype, scale: float = 1.0) -> list[nn.Parameter]:
    torch.manual_seed(0)
    shapes = [(100, 70), (3,), (), (0,), (2, 3, 4)]
    weights = [nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in shapes]
    for weight in weights[:-1]:
        weight.grad = (torch.randn(weight.shape) * scale).to(dtype)
    return weights


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("max_norm", [0.1, 10.0, 1e6])
def test_norm_clipping_gives_torchs_numbers(dtype, max_norm):
    ours, theirs = with_gradients(dtype), with_gradients(dtype)
    for _ in range(2):  # the second time with a held launch
        a = clip_norm_(ours, max_norm)
        b = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
        tolerance = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 2e-2}[dtype]
        torch.testing.assert_close(a, b, rtol=tolerance, atol=0)
        for x, y in zip(ours[:-1], theirs[:-1], strict=True):
            torch.testing.assert_close(x.grad, y.grad, rtol=tolerance, atol=0)
    assert ours[-1].grad is None


def test_norm_clipping_of_hard_gradients():
    half = with_gradients(torch.float16, 100.0)
    exact = math.sqrt(sum(float(w.grad.double().square().sum()) for w in half[:-1]))
    assert clip_norm_(half, 1.0).item() == pytest.approx(exact, rel=1e-3)
    assert torch.isfinite(half[0].grad).all()

    strided = nn.Parameter(torch.zeros(4, 4))
    strided.grad = torch.ones(4, 8)[:, ::2]
    assert clip_norm_(strided, 2.0).item() == 4.0
    torch.testing.assert_close(strided.grad, torch.full((4, 4), 0.5), rtol=1e-6, atol=0)

    bad = with_gradients(torch.float32)
    bad[1].grad[0] = math.inf
    kept = [w.grad.clone() for w in bad[:-1]]
    with pytest.raises(NonFiniteError, match="norm of the gradient"):
        clip_norm_(bad, 1.0, error_if_nonfinite=True)
    assert all(torch.equal(w.grad, g) for w, g in zip(bad[:-1], kept, strict=True))
    other = copy.deepcopy(bad)
    for w, v in zip(bad[:-1], other[:-1], strict=True):
        v.grad = w.grad.clone()
    clip_norm_(bad, 1.0)
    torch.nn.utils.clip_grad_norm_(other, 1.0)
    for w, v in zip(bad[:-1], other[:-1], strict=True):
        torch.testing.assert_close(w.grad, v.grad, equal_nan=True)
    assert clip_norm_([nn.Parameter(torch.ones(2))], 1.0).item() == 0.0


def test_value_clipping():
    model = nn.Linear(3, 1)
    model.weight.grad = torch.tensor([[2.0, -2.0, 0.1]])
    clip_value_(model, 0.5)
    assert model.weight.grad.tolist() == [[0.5, -0.5, pytest.approx(0.1)]]
    for function in (clip_norm_, clip_value_):
        with pytest.raises(ArgumentError, match="> 0"):
            function(model, 0.0)
