"""Changing the import is the whole migration: what people do with a torch optimizer, done with ours."""

from __future__ import annotations

import pytest
import torch
from optimizer_twins import PAIRS, Twins, each, either
from torch.optim.optimizer import register_optimizer_step_post_hook

import ravine.optim
from ravine.errors import UnknownOptionError


def test_named_parameters():
    model = torch.nn.Linear(3, 2)
    optimizer = ravine.optim.Adam(model.named_parameters(), lr=0.1)
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    fresh = ravine.optim.Adam(model.named_parameters(), lr=0.1)
    fresh.load_state_dict(optimizer.state_dict())
    assert fresh.param_groups[0]["param_names"] == ["weight", "bias"]
    assert torch.equal(
        fresh.state[model.weight]["exp_avg"], optimizer.state[model.weight]["exp_avg"]
    )


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad(set_to_none):
    twins = Twins(*PAIRS[2])
    for _ in range(4):
        twins.gradients()
        for optimizer in (twins.a, twins.b):
            optimizer.step()
            optimizer.zero_grad(set_to_none=set_to_none)
            optimizer.step()
        twins.check()


@each
def test_closures(name, options):
    twins = Twins(name, options)

    def closure(optimizer, w):
        def again():
            assert torch.is_grad_enabled()
            optimizer.zero_grad()
            loss = ((w[0] - 1) ** 2).sum() + (w[1] ** 4).sum()
            loss.backward()
            return loss

        return again

    with torch.no_grad():
        for _ in range(5):
            mine = twins.a.step(closure(twins.a, twins.ours))
            other = twins.b.step(closure(twins.b, twins.theirs))
            torch.testing.assert_close(mine, other, rtol=1e-12, atol=0)
    twins.check()
    assert twins.a.step() is None


def test_hooks_run_before_and_after_and_can_be_taken_away():
    twins = Twins(*PAIRS[0])
    seen = []
    before = twins.a.register_step_pre_hook(lambda o, args, kwargs: seen.append("pre"))
    after = twins.a.register_step_post_hook(lambda o, args, kwargs: seen.append("post"))
    twins.step()
    assert seen == ["pre", "post"]
    before.remove()
    after.remove()
    everywhere = register_optimizer_step_post_hook(
        lambda o, args, kwargs: seen.append(type(o).__module__)
    )
    twins.step()
    everywhere.remove()
    twins.step()
    assert seen == ["pre", "post", "ravine.optim", "torch.optim.sgd"]


def test_state_dict_hooks():
    twins = Twins(*PAIRS[0])
    seen = []
    twins.a.register_state_dict_post_hook(lambda o, state: seen.append("saved"))
    twins.a.register_load_state_dict_pre_hook(lambda o, state: seen.append("loading"))
    twins.a.register_load_state_dict_post_hook(lambda o: seen.append("loaded"))
    twins.a.load_state_dict(twins.a.state_dict())
    assert seen == ["saved", "loading", "loaded"]


def test_the_profiler_shows_the_step():
    twins = Twins(*PAIRS[0])
    twins.gradients()
    with torch.profiler.profile() as profile:
        twins.a.step()
    assert any("Optimizer.step#SGD.step" in event.key for event in profile.key_averages())


@either
def test_autograd_notices_that_a_weight_has_changed(backend):
    w = torch.nn.Parameter(torch.ones(3))
    optimizer = ravine.optim.SGD([w], lr=0.1, backend=backend)
    loss = (w * w).sum()
    w.grad = torch.ones(3)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_weights_shared_by_two_modules_are_stepped_once():
    one = torch.nn.Linear(2, 2, bias=False)
    two = torch.nn.Linear(2, 2, bias=False)
    two.weight = one.weight
    optimizer = ravine.optim.SGD(torch.nn.Sequential(one, two).parameters(), lr=1.0)
    before = one.weight.detach().clone()
    one.weight.grad = torch.ones(2, 2)
    optimizer.step()
    torch.testing.assert_close(one.weight, before - 1)


def test_grad_scaler():
    w = torch.nn.Parameter(torch.ones(3))
    optimizer = ravine.optim.SGD([w], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(w.sum()).backward()
    scaler.unscale_(optimizer)
    assert w.grad.tolist() == [1, 1, 1]
    scaler.step(optimizer)
    scaler.update()
    torch.testing.assert_close(w.detach(), torch.full((3,), 0.9))
    w.grad.fill_(torch.inf)
    scaler.scale(w.sum())
    scaler.step(optimizer)
    torch.testing.assert_close(w.detach(), torch.full((3,), 0.9))


def test_another_optimizers_groups_as_parameters():
    w = torch.nn.Parameter(torch.ones(3))
    optimizer = ravine.optim.AdamW(torch.optim.AdamW([w], lr=0.5).param_groups)
    assert optimizer.param_groups[0]["lr"] == 0.5
    again = ravine.optim.AdamW(optimizer.param_groups)
    assert again.param_groups[0]["lr"] == 0.5


def test_the_callers_group_is_not_changed():
    group = {"params": [torch.nn.Parameter(torch.ones(3))], "lr": 0.5, "name": "mine"}
    kept = dict(group)
    optimizer = ravine.optim.SGD([group])
    assert group == kept
    assert optimizer.param_groups[0]["name"] == "mine"


def test_repr_is_a_line_of_code_and_facts():
    w = torch.nn.Parameter(torch.ones(1200))
    optimizer = ravine.optim.Adam([w], lr=0.5, clip_norm=1.0)
    assert repr(optimizer) == "Adam(lr=0.5, clip_norm=1.0)  # 1 group, 1.2k weights, no state yet"
    w.grad = torch.ones(1200)
    optimizer.step()
    assert repr(optimizer).endswith("# 1 group, 1.2k weights, state 9.6kB float32, cpu kernel")


def test_explain():
    dense = torch.nn.Parameter(torch.ones(4))
    gaps = torch.nn.Parameter(torch.ones(4, 4)[:, ::2])
    late = torch.nn.Parameter(torch.ones(2))
    optimizer = ravine.optim.Adam([dense, gaps, late], lr=0.5, clip_norm=1.0)
    assert optimizer.explain().splitlines() == [
        "2 tensors, 6 weights, torch.float32: cpu: tensors on the CPU, compiled by LLVM",
        "1 tensors, 8 weights, torch.float32: reference: the tensor is a view with gaps or overlaps",
    ]
    dense.grad, gaps.grad = torch.ones(4), torch.ones(4, 2)
    optimizer.step()
    assert optimizer.explain().splitlines() == [
        "1 tensors, 4 weights, torch.float32: cpu kernel of clip_by_norm + adam: "
        "tensors on the CPU, compiled by LLVM",
        "1 tensors, 8 weights, torch.float32: reference: the tensor is a view with gaps or overlaps",
        "1 tensors have had no gradient so far: not stepped",
    ]


def test_torchs_ways_to_run_a_step_are_taken_and_change_nothing():
    w = torch.nn.Parameter(torch.ones(3))
    optimizer = ravine.optim.AdamW([w], lr=0.1, fused=True, foreach=False)
    assert "fused" not in optimizer.param_groups[0]
    with pytest.raises(UnknownOptionError, match="AdamW has no option 'capturabel'"):
        ravine.optim.AdamW([w], capturabel=True)


def test_hooks_may_change_what_is_saved_and_loaded():
    w = torch.nn.Parameter(torch.ones(3))
    saver, loader = (ravine.optim.Adam([w], lr=0.1) for _ in "ab")
    w.grad = torch.ones(3)
    saver.step()
    saver.register_state_dict_pre_hook(lambda o: o.param_groups[0].update(note="before"))
    saver.register_state_dict_post_hook(lambda o, state: {**state, "more": 1})
    saver.register_state_dict_post_hook(lambda o, state: state.update(last=2))
    state = saver.state_dict()
    assert (state["more"], state["last"], state["param_groups"][0]["note"]) == (1, 2, "before")

    def halved(optimizer, state):
        return {**state, "state": {k: {**v, "step": 1} for k, v in state["state"].items()}}

    def changed_in_place(optimizer, state):
        state["param_groups"] = [{**g, "lr": 0.75} for g in state["param_groups"]]

    loader.register_load_state_dict_pre_hook(changed_in_place)
    loader.register_load_state_dict_pre_hook(halved, prepend=True)
    seen = []
    loader.register_load_state_dict_post_hook(
        lambda o: seen.append((o.param_groups[0]["lr"], o.state[w]["step"]))
    )
    loader.load_state_dict(state)
    assert seen == [(0.75, 1)]
    assert state["param_groups"][0]["lr"] == 0.1
