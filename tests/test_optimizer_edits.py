"""What people change in the middle of a run: groups, options, gradients, state."""

from __future__ import annotations

import pytest
import torch
from optimizer_twins import PAIRS, Twins, each, either

import ravine.optim


@either
@each
def test_weights_without_gradient_on_some_steps(name, options, backend):
    twins = Twins(name, options, backend)
    for step in range(40):
        skipped = {k for k in range(2) if (step >> k) % 3 == 1}
        twins.step(skipped)
    if name != "SGD":
        for w, v in zip(twins.ours[:2], twins.theirs[:2], strict=True):
            assert float(twins.a.state[w]["step"]) == float(twins.b.state[v]["step"])


@either
@each
def test_a_weight_whose_first_gradient_comes_late(name, options, backend):
    twins = Twins(name, options, backend)
    for step in range(20):
        twins.step({1} if step < 7 else {0} if step in (11, 12) else ())


@either
def test_no_gradient_at_all(backend):
    twins = Twins(*PAIRS[2], backend)
    twins.step({0, 1})
    twins.step()
    twins.step({0, 1})
    twins.step()


@each
def test_a_group_is_added_in_the_middle_with_options_of_its_own(name, options):
    twins = Twins(name, options)
    for _ in range(3):
        twins.step()
    own = {"lr": 0.003, "weight_decay": 0.1}
    twins.a.add_param_group({"params": twins.ours[2:], **own})
    twins.b.add_param_group({"params": twins.theirs[2:], **own})
    for _ in range(10):
        twins.step()
    assert "2 groups" in repr(twins.a)


def test_groups_of_different_options_share_a_launch_where_they_can():
    ws = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    optimizer = ravine.optim.SGD(
        [
            {"params": [ws[0]], "momentum": 0.9, "lr": 0.1},
            {"params": [ws[1]], "momentum": 0.8},
            {"params": [ws[2]], "momentum": 0.0},
        ],
        lr=0.2,
    )
    for w in ws:
        w.grad = torch.ones(2)
    optimizer.step()
    assert len(optimizer.explain().splitlines()) == 2


@each
def test_options_changed_in_the_middle_of_a_run(name, options):
    twins = Twins(name, options)
    changes = {3: {"lr": 0.05}, 6: {"weight_decay": 0.1}, 9: {"lr": torch.tensor(0.02).double()}}
    if "momentum" in options:
        changes |= {12: {"momentum": 0.3}, 15: {"momentum": 0.8}}
    else:
        changes |= {12: {"betas": (0.5, 0.9)}, 15: {"eps": 1e-3}}
    for step in range(20):
        for mine, other in twins.groups():
            mine.update(changes.get(step, {}))
            other.update(changes.get(step, {}))
        twins.step()


@either
def test_an_option_switched_on_later_gets_its_state_then(backend):
    w = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = ravine.optim.SGD([w], lr=0.1, backend=backend)
    w.grad = torch.ones_like(w)
    optimizer.step()
    assert set(optimizer.state[w]) == {"step"}
    optimizer.param_groups[0]["average"] = 0.5
    optimizer.param_groups[0]["momentum"] = 0.5
    before = w.detach().clone()
    optimizer.step()
    assert set(optimizer.state[w]) == {"step", "average", "momentum_buffer"}
    torch.testing.assert_close(optimizer.state[w]["average"], 0.5 * before + 0.5 * w.detach())


def test_a_momentum_that_changes_at_every_step_makes_nothing_anew():
    twins = Twins("SGD", {"lr": 0.1, "momentum": 0.9})
    twins.step()
    buckets = twins.a._plan.buckets
    for step in range(5):
        for mine, other in twins.groups():
            mine["momentum"] = other["momentum"] = 0.9 - 0.1 * step
        twins.step()
    assert twins.a._plan.buckets is buckets


@either
@pytest.mark.parametrize("how", ["clear", "replace"])
def test_state_thrown_away_begins_anew(how, backend):
    twins = Twins("Adam", {"lr": 0.01}, backend)
    twins.step()
    twins.step()
    for optimizer in (twins.a, twins.b):
        if how == "clear":
            optimizer.state.clear()
        else:
            optimizer.state = type(optimizer.state)(dict)
    twins.step()
    twins.step()


@either
@pytest.mark.parametrize("how", ["replaced", "in place", "whole dictionary", "removed", "update"])
def test_state_edited_by_hand_counts_at_the_next_step(how, backend):
    twins = Twins("Adam", {"lr": 0.01}, backend)
    for _ in range(3):
        twins.step()
    for optimizer, ws in ((twins.a, twins.ours), (twins.b, twins.theirs)):
        state = optimizer.state[ws[0]]
        if how == "replaced":
            state["exp_avg"] = torch.ones_like(ws[0])
        elif how == "in place":
            state["exp_avg_sq"].fill_(3.0)
        elif how == "update":
            state.update(exp_avg=torch.ones_like(ws[0]))
        elif how == "removed":
            del optimizer.state[ws[0]]
        else:
            optimizer.state[ws[0]] = {
                name: value.clone() if name == "step" else value + 1
                for name, value in state.items()
            }
    for _ in range(3):
        twins.step()


@either
@pytest.mark.parametrize("how", ["fill_", "zero_", "+=", "replaced"])
@pytest.mark.parametrize("which", [[0], [0, 1]], ids=str)
def test_a_step_count_edited_by_hand_counts(how, which, backend):
    twins = Twins("Adam", {"lr": 0.01}, backend)
    for _ in range(3):
        twins.step()
    for optimizer, ws in ((twins.a, twins.ours), (twins.b, twins.theirs)):
        for k in which:
            state = optimizer.state[ws[k]]
            if how == "+=":
                state["step"] += 2
            elif how == "replaced":
                state["step"] = torch.tensor(7.0)
            else:
                getattr(state["step"], how)(*([5] if how == "fill_" else []))
    for _ in range(3):
        twins.step()
    for w, v in zip(twins.ours[:2], twins.theirs[:2], strict=True):
        assert float(twins.a.state[w]["step"]) == float(twins.b.state[v]["step"])


@either
def test_betas_and_eps_that_change_at_every_step(backend):
    twins = Twins("Adam", {"lr": 0.01}, backend)
    for step in range(12):
        for mine, other in twins.groups():
            mine["betas"] = other["betas"] = (0.9 - 0.05 * step, 0.99 - 0.01 * step)
            mine["eps"] = other["eps"] = 10.0**-step
        twins.step()


@either
def test_momentum_switched_on_in_the_middle_begins_undamped_as_torchs(backend):
    twins = Twins("SGD", {"lr": 0.1}, backend)
    for _ in range(4):
        twins.step()
    for mine, other in twins.groups():
        mine.update(momentum=0.9, dampening=0.5)
        other.update(momentum=0.9, dampening=0.5)
    for step in range(4):
        twins.step({0} if step == 0 else ())
