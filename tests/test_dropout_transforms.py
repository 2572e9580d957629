"""Dropout under derivatives, torch.func, torch.compile and recomputation."""

from __future__ import annotations

import pytest
import torch
from dropout_cases import fixed
from torch import nn
from torch.utils.checkpoint import checkpoint

from ravine.errors import ArgumentError
from ravine.regularize import Dropout, checkpoint_contexts
from ravine.regularize.dropout_mask import (
    Chance,
    drop_reference,
)

# --- derivatives and transforms ------------------------------------------------------------------


def test_first_and_second_derivative():
    x = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(fixed(), x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(lambda t: fixed()(t * t * t), x)


def test_the_gradient_goes_through_the_same_mask():
    x = torch.randn(70_001, requires_grad=True)
    layer = Dropout(0.3, seed=3)
    y = layer(x)
    layer(x)  # a later call does not change the way back of the first
    y.sum().backward()  # its gradient is a broadcast one
    assert torch.equal(x.grad, fixed()(torch.ones_like(x)))


def test_hessian_vector_product():
    x = torch.randn(50, dtype=torch.float64, requires_grad=True)
    mask = fixed()(torch.ones_like(x)).detach()
    (g,) = torch.autograd.grad((fixed()(x) ** 3).sum(), x, create_graph=True)
    (h,) = torch.autograd.grad(g.sum(), x)
    torch.testing.assert_close(h, 6 * mask**3 * x.detach())


def test_functorch_sees_the_same_mask_and_counts():
    x = torch.randn(6, dtype=torch.float64)
    layer = Dropout(0.3, seed=3)
    mask = fixed()(torch.ones_like(x))
    gradient = torch.func.grad(lambda t: (layer(t) ** 2).sum())(x)
    torch.testing.assert_close(gradient, 2 * mask**2 * x)
    assert layer.stream.tolist() == [3, 1]
    layer.reseed(3)
    _, tangent = torch.func.jvp(layer, (x,), (torch.ones_like(x),))
    assert torch.equal(tangent, mask)
    layer.reseed(3)
    assert torch.equal(torch.func.vmap(layer)(torch.ones(2, 6).double()), mask.expand(2, 6))


def test_stacked_models_draw_masks_of_their_own():
    model = nn.Sequential(Dropout(0.5, seed=0))
    streams = torch.tensor([[1, 0], [2, 5]])

    def run(stream, x):
        return torch.func.functional_call(model, {"0.stream": stream}, (x,))

    results = torch.func.vmap(run, in_dims=(0, None))(streams, torch.ones(40))
    for stream, result in zip(torch.tensor([[1, 0], [2, 5]]), results, strict=True):
        assert torch.equal(result, drop_reference(torch.ones(40), stream, Chance.of(0.5)))
    assert streams.tolist() == [[1, 1], [2, 6]]


def test_compiled_by_torch_in_one_graph():
    torch._dynamo.reset()
    layer, eager = Dropout(0.3, seed=3), Dropout(0.3, seed=3)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 300, requires_grad=True)
    for _ in range(10):  # a counter that were a Python number would compile anew each time
        a, b = compiled(x), eager(x)
        assert torch.equal(a, b)
        (g,) = torch.autograd.grad(a.sum(), x)
        (h,) = torch.autograd.grad(b.sum(), x)
        assert torch.equal(g, h)
    assert layer.stream.tolist() == [3, 10]


# --- recomputation -------------------------------------------------------------------------------


def test_checkpoint_draws_the_first_masks_again():
    model = nn.Sequential(nn.Linear(3, 30), Dropout(0.5, seed=0), nn.Tanh(), nn.Linear(30, 3))
    x = torch.randn(4, 3)
    expected = []
    for _ in range(2):
        model.zero_grad()
        model(x).sum().backward()
        expected.append(model[0].weight.grad.clone())
    model[1].reseed(0)
    outputs = [
        checkpoint(
            model, x, use_reentrant=False, context_fn=lambda: checkpoint_contexts(model)
        ).sum()
        for _ in range(2)
    ]
    for output, gradient in reversed(list(zip(outputs, expected, strict=True))):
        model.zero_grad()
        output.backward()
        assert torch.equal(model[0].weight.grad, gradient)
    assert model[1].stream.tolist() == [0, 2]


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoint_without_contexts_is_refused(reentrant):
    model = nn.Sequential(Dropout(0.5), nn.Tanh())
    x = torch.randn(4, 3, requires_grad=True)
    with pytest.raises(ArgumentError, match=r"(?s)run again.*checkpoint_contexts"):
        checkpoint(model, x, use_reentrant=reentrant).sum().backward()
