"""Weights that change under the optimizer: frozen, replaced, moved, cast, tied, parametrized."""

from __future__ import annotations

import copy

import pytest
import torch
from optimizer_twins import PAIRS, Twins, each, either

import ravine.optim


def test_frozen_weights_are_left_alone():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    model[0].requires_grad_(False)
    optimizer = ravine.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5, clip_norm=1.0)
    before = copy.deepcopy(model.state_dict())
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    assert torch.equal(model[0].weight, before["0.weight"])
    assert not torch.equal(model[1].weight, before["1.weight"])
    assert model[0].weight not in optimizer.state or not optimizer.state[model[0].weight]


def test_a_weight_given_other_memory():
    twins = Twins(*PAIRS[2])
    for step in range(6):
        twins.step()
        if step == 2:
            for w in (*twins.ours, *twins.theirs):
                w.data = w.data.clone() + 1
        if step == 4:
            for w in twins.ours:
                w.data = w.data.t().contiguous().t()


@either
def test_a_weight_given_another_type_with_its_old_gradient_still_there(backend):
    w = torch.nn.Parameter(torch.zeros(100))
    optimizer = ravine.optim.SGD([w], lr=1.0, backend=backend)
    w.grad = torch.ones(100)
    optimizer.step()
    w.data = w.data.double()
    optimizer.step()
    assert w.dtype is torch.float64
    assert (w == -2).all()


@each
def test_a_model_made_double_after_the_optimizer(name, options):
    model, other = (torch.nn.Linear(3, 2) for _ in "ab")
    other.load_state_dict(model.state_dict())
    a = getattr(ravine.optim, name)(model.parameters(), **options)
    b = getattr(torch.optim, name)(other.parameters(), **options)
    model.double()
    other.double()
    for _ in range(5):
        for w, v in zip(model.parameters(), other.parameters(), strict=True):
            w.grad = torch.randn_like(w)
            v.grad = w.grad.clone()
        a.step()
        b.step()
    torch.testing.assert_close(model.weight, other.weight, rtol=1e-12, atol=1e-14)


@either
def test_parameters_replaced_in_the_group(backend):
    """As density control of Gaussian splatting does it, with the state cut to the new weight."""
    twins = Twins("Adam", {"lr": 0.01}, backend)
    twins.step()
    for optimizer, mine in ((twins.a, twins.ours), (twins.b, twins.theirs)):
        old = mine[0]
        state = optimizer.state.pop(old)
        new = torch.nn.Parameter(torch.cat([old.detach(), old.detach()[:1]]))
        for name in ("exp_avg", "exp_avg_sq"):
            state[name] = torch.cat([state[name], torch.zeros_like(state[name][:1])])
        optimizer.state[new] = state
        optimizer.param_groups[0]["params"][0] = mine[0] = new
    for _ in range(3):
        for w, v in zip(twins.ours, twins.theirs, strict=True):
            w.grad = torch.randn_like(w)
            v.grad = w.grad.clone()
        twins.a.step()
        twins.b.step()
        twins.check()


@either
@each
def test_weights_frozen_and_set_free_again(name, options, backend):
    twins = Twins(name, options, backend)
    for step in range(12):
        frozen = step // 3 % 2 == 1
        for w in (twins.ours[0], twins.theirs[0]):
            w.requires_grad_(not frozen)
        twins.step({0} if frozen else ())


@either
@each
def test_a_weight_taken_out_of_its_group(name, options, backend):
    twins = Twins(name, options, backend)
    for _ in range(3):
        twins.step()
    for optimizer in (twins.a, twins.b):
        del optimizer.param_groups[0]["params"][0]
    for _ in range(3):
        twins.step()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_of_another_type_after_the_first_steps(dtype):
    model = torch.nn.Linear(40, 3)
    optimizer = ravine.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(2):
        model.zero_grad()
        model(torch.ones(2, 40)).sum().backward()
        optimizer.step()
    model.to(dtype)
    for w in model.parameters():
        w.grad = torch.ones_like(w)
    before = model.weight.detach().clone()
    optimizer.step()
    assert model.weight.dtype is dtype
    torch.testing.assert_close(model.weight, before - 0.01, rtol=1e-2, atol=1e-3)
    assert optimizer.state[model.weight]["step"] == 3


def test_a_parametrized_weight():
    torch.manual_seed(0)
    model = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 2)).double()
    other = copy.deepcopy(model)
    pairs = [(model, ravine.optim.AdamW), (other, torch.optim.AdamW)]
    made = [(m, cls(m.parameters(), lr=0.1)) for m, cls in pairs]
    x = torch.randn(4, 3, dtype=torch.float64)
    for _ in range(5):
        for m, optimizer in made:
            optimizer.zero_grad()
            m(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(model.weight, other.weight, rtol=1e-12, atol=1e-13)


def test_tied_weights_of_a_language_model():
    models = []
    for module in (ravine.optim, torch.optim):
        torch.manual_seed(0)
        table, head = torch.nn.Embedding(7, 4).double(), torch.nn.Linear(4, 7).double()
        head.weight = table.weight
        model = torch.nn.Sequential(table, head)
        optimizer = module.AdamW(model.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(
                model(torch.tensor([1, 2, 3])), torch.tensor([2, 3, 4])
            ).backward()
            optimizer.step()
        models.append(model.state_dict())
    torch.testing.assert_close(*models, rtol=1e-12, atol=1e-13)
