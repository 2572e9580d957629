"""Changing the import is the whole migration: what people do with a torch optimizer, done with ours."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

import ravine.optim
from ravine.errors import UnknownOptionError

PAIRS = [
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.5, "centered": True}),
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("AdamW", {"lr": 0.01}),
]
IDS = [name for name, _ in PAIRS]
either = pytest.mark.parametrize("backend", ["cpu", "reference"])
each = pytest.mark.parametrize(("name", "options"), PAIRS, ids=IDS)


class Twins:
    """The same weights twice, under our optimizer and under torch's."""

    def __init__(self, name, options, backend="auto", count=4):
        self.ours = [torch.nn.Parameter(torch.randn(3, 2).double()) for _ in range(count)]
        self.theirs = [torch.nn.Parameter(w.detach().clone()) for w in self.ours]
        self.a = getattr(ravine.optim, name)(self.ours[:2], backend=backend, **options)
        self.b = getattr(torch.optim, name)(self.theirs[:2], **options)

    def gradients(self, skipped=()):
        for k, (w, v) in enumerate(zip(self.ours, self.theirs, strict=True)):
            w.grad = None if k in skipped else torch.randn(3, 2).double()
            v.grad = None if k in skipped else w.grad.clone()

    def step(self, skipped=()):
        self.gradients(skipped)
        self.a.step()
        self.b.step()
        self.check()

    def check(self):
        for w, v in zip(self.ours, self.theirs, strict=True):
            torch.testing.assert_close(w, v, rtol=1e-12, atol=1e-13)

    def groups(self):
        return [*zip(self.a.param_groups, self.b.param_groups, strict=True)]


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
        "2 tensors, 6 weights, torch.float32: cpu: tensors on the CPU, compiled by Numba",
        "1 tensors, 8 weights, torch.float32: reference: the tensor is a view with gaps or overlaps",
    ]
    dense.grad, gaps.grad = torch.ones(4), torch.ones(4, 2)
    optimizer.step()
    assert optimizer.explain().splitlines() == [
        "1 tensors, 4 weights, torch.float32: cpu kernel of clip_by_norm + adam: "
        "tensors on the CPU, compiled by Numba",
        "1 tensors, 8 weights, torch.float32: reference: the tensor is a view with gaps or overlaps",
        "1 tensors have had no gradient so far: not stepped",
    ]


def test_torchs_ways_to_run_a_step_are_taken_and_change_nothing():
    w = torch.nn.Parameter(torch.ones(3))
    optimizer = ravine.optim.AdamW([w], lr=0.1, fused=True, foreach=False)
    assert "fused" not in optimizer.param_groups[0]
    with pytest.raises(UnknownOptionError, match="AdamW has no option 'capturabel'"):
        ravine.optim.AdamW([w], capturabel=True)
