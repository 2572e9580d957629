"""The layer Dropout: its masks call by call, its state, its bounds, and without llvmlite."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from dropout_cases import DTYPES, fixed
from torch import nn

from ravine.errors import ArgumentError, ArgumentTypeError, BackendWarning
from ravine.regularize import Dropout


def test_eval_and_zero_return_the_input_and_draw_nothing():
    x = torch.randn(5)
    layer = Dropout(0.0, seed=0)
    assert layer(x) is x
    layer.p = 0.5
    assert layer.eval()(x) is x
    layer.train().p = 1.0
    layer(x)
    assert layer.stream.tolist() == [0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_gives_exact_zeros_and_a_gradient_of_zeros(dtype):  # torch issue 107942
    x = torch.tensor([1.0, math.nan, math.inf, -math.inf, 0.0], dtype=dtype, requires_grad=True)
    y = Dropout(1.0)(x)
    y.backward(torch.full_like(y, math.inf))
    assert torch.equal(y, torch.zeros_like(y))
    assert torch.equal(x.grad, torch.zeros_like(x))
    compiled = torch.compile(Dropout(1.0), backend="aot_eager", fullgraph=True)(x)
    assert torch.equal(compiled, torch.zeros_like(y))


def test_what_is_dropped_leaves_no_trace():
    x = torch.full((100,), math.nan)
    y = Dropout(0.5, seed=0)(x)
    mask = Dropout(0.5, seed=0)(torch.ones(100))
    assert torch.equal(y.isnan(), mask != 0)
    assert torch.equal(y[mask == 0], mask[mask == 0])


def test_every_call_draws_another_mask_and_counts():
    layer = Dropout(0.5, seed=0)
    x = torch.ones(1000)
    masks = [layer(x) for _ in range(3)]
    assert layer.stream.tolist() == [0, 3]
    assert not any(torch.equal(masks[a], masks[b]) for a in range(3) for b in range(a))
    layer.reseed(0)
    assert torch.equal(layer(x), masks[0])


def test_a_resumed_run_draws_the_same_masks():
    layer, x = Dropout(0.5, seed=3), torch.ones(500)
    layer(x)
    state = copy.deepcopy(layer.state_dict())
    expected = [layer(x) for _ in range(2)]
    resumed = Dropout(0.5)
    resumed.load_state_dict(state)
    assert all(torch.equal(resumed(x), mask) for mask in expected)


def test_a_state_of_torchs_layer_can_be_loaded():
    ours = nn.Sequential(nn.Linear(2, 2), Dropout(0.5, seed=4))
    result = ours.load_state_dict(nn.Sequential(nn.Linear(2, 2), nn.Dropout()).state_dict())
    assert not result.missing_keys
    assert ours[1].stream.tolist() == [4, 0]


def test_layers_without_a_seed_differ_and_follow_torchs():
    def layers():
        torch.manual_seed(11)
        return [Dropout().stream.tolist() for _ in range(2)]

    first = layers()
    assert first[0] != first[1]
    assert layers() == first


def test_torchs_generator_is_left_alone():
    state = torch.get_rng_state()
    Dropout(0.5, seed=0)(torch.ones(100))
    assert torch.equal(torch.get_rng_state(), state)


def test_empty_and_scalar_inputs():
    assert Dropout(0.5)(torch.ones(0, 3)).shape == (0, 3)
    assert Dropout(0.5, seed=0)(torch.tensor(1.0)).shape == ()


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan, math.inf])
def test_probabilities_out_of_bounds(p):
    with pytest.raises(ArgumentError, match=r"Dropout: p.*\n.*got:.*\n.*probability in \[0, 1\]"):
        Dropout(p)
    layer = Dropout(0.5)
    with pytest.raises(ArgumentError):
        layer.p = p
    assert layer.p == 0.5


def test_wrong_types_and_seeds():
    with pytest.raises(ArgumentTypeError, match="not a number"):
        Dropout("0.5")
    with pytest.raises(ArgumentError, match=r"2\^63"):
        Dropout(0.5, seed=2**63)
    with pytest.raises(ArgumentError, match="seed"):
        Dropout(0.5, seed=-1)
    with pytest.raises(ArgumentTypeError, match=r"(?s)real float.*torch.int64"):
        Dropout(0.5)(torch.ones(3, dtype=torch.int64))


def test_without_llvmlite_the_numbers_are_the_same(monkeypatch):
    from ravine.engine import choice, cpu

    x = torch.randn(500, requires_grad=True)
    expected = fixed()(x)
    (gradient,) = torch.autograd.grad(expected.sum(), x)
    monkeypatch.setattr(cpu, "unavailable", lambda: "llvmlite is not here")
    monkeypatch.setattr(choice, "_warned", set())
    with pytest.warns(BackendWarning, match="plain PyTorch"):
        result = fixed()(x)
    assert torch.equal(result, expected)
    assert torch.equal(torch.autograd.grad(result.sum(), x)[0], gradient)
