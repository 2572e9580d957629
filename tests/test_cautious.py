"""The option cautious: what of a step is kept, on every rule, executor and type."""

from __future__ import annotations

import pytest
import torch

import ravine.optim
from ravine.errors import ArgumentError, EquationError

BACKENDS = ["cpu", "reference"]


def weight(values, dtype=torch.float64):
    return torch.nn.Parameter(torch.tensor(values, dtype=dtype))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_half_of_a_step_goes_with_the_gradient(backend, dtype):
    w = weight([0.0, 0.0, 0.0, 0.0], dtype)
    optimizer = ravine.optim.SGD([w], lr=0.5, momentum=0.5, cautious=True, backend=backend)
    w.grad = torch.tensor([1.0, 1.0, 2.0, -2.0], dtype=dtype)
    optimizer.step()
    assert w.tolist() == [-0.5, -0.5, -1.0, 1.0]
    # The buffer is now (0.25, 0, 0.5, -2): the first two do not go against the gradient.
    w.grad = torch.tensor([-0.25, -0.5, -0.5, -1.0], dtype=dtype)
    w.grad[2] = 0.5
    optimizer.step()
    assert optimizer.state[w]["momentum_buffer"].tolist() == [0.25, 0.0, 1.5, -2.0]
    assert w.tolist() == [-0.5, -0.5, -1.0 - 2 * 0.75, 1.0 + 2 * 1.0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_that_nothing_is_left_of(backend):
    w = weight([1.0, -1.0])
    optimizer = ravine.optim.SGD([w], lr=0.5, momentum=0.9, cautious=True, backend=backend)
    w.grad = torch.tensor([4.0, -4.0], dtype=torch.float64)
    optimizer.step()
    before = w.detach().clone()
    w.grad = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    optimizer.step()
    assert torch.equal(w.detach(), before)


def test_the_mean_is_over_one_tensor_not_over_the_model():
    ws = [weight([0.0, 0.0]), weight([0.0, 0.0])]
    optimizer = ravine.optim.SGD(ws, lr=1.0, momentum=0.5, cautious=True)
    for w in ws:
        w.grad = torch.ones(2, dtype=torch.float64)
    optimizer.step()
    ws[0].grad = torch.tensor([-0.25, 1.0], dtype=torch.float64)
    optimizer.step()
    assert ws[0].tolist() == [-1.0, -1.0 - 2 * 1.5]
    assert ws[1].tolist() == [-2.5, -2.5]


@pytest.mark.parametrize("name", sorted(ravine.optim.OPTIMIZERS))
def test_executors_agree_for_every_rule(name):
    if getattr(ravine.optim, name).rule.evaluation is not None:
        pytest.skip("a rule evaluated at an average, which refuses it")
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(s, dtype=torch.float64, generator=generator) for s in ((5, 5), (7,), ())]
    gradients = [
        [torch.randn(v.shape, dtype=torch.float64, generator=generator) for v in values]
        for _ in range(6)
    ]
    found = []
    for backend in BACKENDS:
        ws = [torch.nn.Parameter(v.clone()) for v in values]
        options = {"lr": 0.01, "weight_decay": 0.1, "clip_norm": 3.0, "cautious": True}
        optimizer = getattr(ravine.optim, name)(ws, backend=backend, **options)
        for step in gradients:
            for w, g in zip(ws, step, strict=True):
                w.grad = g
            optimizer.step()
        assert all("w_before" not in state for state in optimizer.state.values())
        found.append(ws)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


def test_an_optimizer_that_is_not_cautious_runs_nothing_of_it():
    w = weight([1.0])
    w.grad = torch.ones(1, dtype=torch.float64)
    optimizer = ravine.optim.Adam([w])
    optimizer.step()
    assert "kernel of adam:" in optimizer.explain()


def test_weights_without_elements():
    w = torch.nn.Parameter(torch.zeros(0, 3))
    w.grad = torch.zeros(0, 3)
    ravine.optim.AdamW([w], cautious=True).step()


def test_words_for_a_wrong_value_and_a_taken_name():
    with pytest.raises(ArgumentError, match="cautious has a value that cannot be used"):
        ravine.optim.AdamW([weight([1.0])], cautious=1)
    with pytest.raises(EquationError, match="has a state called 'w_before'"):

        @ravine.update_rule
        def taken(w, g, w_before, *, lr):
            return w - lr * g, w_before
