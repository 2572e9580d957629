"""Pickles, copies and files: an optimizer goes on alone, with the same bits."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

import ravine.optim
from ravine.schedules import cosine, plateau, warmup


def pickled(thing):
    return pickle.loads(pickle.dumps(thing))


def saved(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


ways = pytest.mark.parametrize("again", [copy.deepcopy, pickled, saved])
OPTIONS = [
    {"lr": 0.1},
    {"lr": torch.tensor(0.1)},
    {"lr": warmup(2) >> cosine(9, peak=0.1)},
    {"lr": plateau(0.1, patience=0), "average": 0.9, "clip_norm": 1.0},
]


def trained(count=3, **options):
    ws = [torch.nn.Parameter(torch.ones(4) * k) for k in range(1, 3)]
    optimizer = ravine.optim.Adam(list(zip("ab", ws, strict=True)), **options)
    go_on(optimizer, ws, count)
    return optimizer, ws


def go_on(optimizer, ws, count=3):
    for k in range(count):
        for w in ws:
            w.grad = torch.linspace(-1, k, 4) * w.detach()
        optimizer.step()


@ways
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: str(o["lr"]))
@pytest.mark.parametrize("steps", [0, 3])
def test_a_copy_goes_on_alone_with_the_same_bits(again, options, steps):
    first, ws = trained(steps, **options)
    second, vs = again((first, ws))
    assert second.param_groups[0]["params"][0] is vs[0]
    assert second.param_groups[0]["param_names"] == ["a", "b"]
    assert all(type(state) is dict for state in second.state.values())
    go_on(first, ws)
    kept = [v.detach().clone() for v in vs]
    go_on(first, ws, 2)
    assert all(map(torch.equal, vs, kept))  # the copy has not moved
    go_on(second, vs)
    go_on(second, vs, 2)
    assert all(map(torch.equal, ws, vs))
    assert repr(first) == repr(second)


@ways
def test_hooks_stay_with_the_original_as_torchs(again):
    seen = []
    copies = []
    for made in (ravine.optim.SGD, torch.optim.SGD):
        w = torch.nn.Parameter(torch.ones(2))
        optimizer = made([w], lr=0.1)
        optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append(1))
        optimizer.register_state_dict_post_hook(lambda o, state: seen.append(1))
        copies.append(again(optimizer) if again is copy.deepcopy else again_without(again, made))
    for optimizer in copies:
        optimizer.step()
        optimizer.state_dict()
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.zero_grad()
    assert not seen
    handle = copies[0].register_step_pre_hook(lambda o, args, kwargs: seen.append(1))
    copies[0].step()
    handle.remove()
    assert seen == [1]


def again_without(again, made):
    """Hooks that are lambdas cannot be pickled, and need not be: they are not part of the pickle."""
    optimizer = made([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    optimizer.register_step_post_hook(lambda o, args, kwargs: None)
    return again(optimizer)


def test_a_state_dict_is_safe_to_load_in_the_middle_of_a_run():
    optimizer, _ = trained(average=0.9)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert [type(value) for value in state["state"].values()] == [dict, dict]
    assert sorted(state["state"][0]) == ["average", "exp_avg", "exp_avg_sq", "step"]
    assert state["param_groups"][0]["param_names"] == ["a", "b"]


def test_a_loaded_state_is_not_shared_with_the_one_it_came_from():
    first, ws = trained()
    second, vs = trained(0)
    with torch.no_grad():
        for w, v in zip(ws, vs, strict=True):
            v.copy_(w)
    second.load_state_dict(first.state_dict())
    go_on(first, ws)
    go_on(second, vs)
    assert all(map(torch.equal, ws, vs))


def test_a_model_copied_with_its_optimizer_shares_nothing():
    model = torch.nn.Linear(3, 2)
    optimizer = ravine.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    other, theirs = copy.deepcopy((model, optimizer))
    kept = copy.deepcopy(model.state_dict())
    for _ in range(3):
        theirs.zero_grad()
        other(torch.ones(1, 3)).sum().backward()
        theirs.step()
    assert torch.equal(model.weight, kept["weight"])
    assert not torch.equal(other.weight, kept["weight"])
    assert float(optimizer.state[model.weight]["step"]) == 1
    assert float(theirs.state[other.weight]["step"]) == 4
